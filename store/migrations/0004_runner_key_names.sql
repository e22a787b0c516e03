-- Who a machine is to an operator, so that one whose key is lost can be allowed
-- another one.
ALTER TABLE runner_key ADD COLUMN name TEXT NOT NULL DEFAULT ''; -- ENTRY/ID
ALTER TABLE runner_key ADD COLUMN opened INTEGER; -- Unix seconds: since when the next key counts in place of this one; else NULL
CREATE INDEX runner_key_name ON runner_key (name);

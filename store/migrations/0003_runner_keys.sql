-- The key that each machine came with first, for evidence that is a copy for
-- whoever has read it. Forgetting a row refuses its machine, and opens nothing.
CREATE TABLE runner_key (
    machine BLOB PRIMARY KEY,  -- SHA-256 of what names the machine
    key     BLOB NOT NULL,     -- SHA-256 thumbprint (RFC 7638)
    first   INTEGER NOT NULL   -- Unix seconds
) STRICT, WITHOUT ROWID;
CREATE INDEX runner_key_first ON runner_key (first);

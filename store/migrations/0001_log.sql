-- One row is one group commit: the entries that became durable together.
--   entries  each entry with its length before it (two bytes, big-endian), as
--            C2SP tlog-tiles puts them into bundles
--   note     the signed checkpoint of the tree after this commit; it stands
--            before entries so that reading it doesn't read them
CREATE TABLE batch (
    first   INTEGER PRIMARY KEY,
    size    INTEGER NOT NULL CHECK (size > first),
    note    BLOB NOT NULL,
    entries BLOB NOT NULL
) STRICT;

-- Hash tiles: concatenated hashes of 32 bytes. Of level 0 only full tiles are
-- here: the last, partial one follows from the entries, and writing it at each
-- commit would cost more than the commit. A partial tile of a higher level is
-- overwritten by its longer self.
CREATE TABLE tile (
    id   INTEGER PRIMARY KEY, -- level << 56 | number
    data BLOB NOT NULL
) STRICT;

-- Replay keys that were used up, those of one commit and one expiry together.
--   id    expiry in steps of 5 minutes, rounded up << 39 | first entry of the commit
--   keys  the first 16 bytes of each key
CREATE TABLE claim (
    id   INTEGER PRIMARY KEY,
    keys BLOB NOT NULL
) STRICT;

-- Credentials that were ended before they expired. What is not here lives
-- until it expires: that it was issued is in the log.
CREATE TABLE revocation (
    id       TEXT PRIMARY KEY, -- the credential's
    kind     TEXT NOT NULL,
    decision TEXT NOT NULL,    -- that issued it
    expires  INTEGER NOT NULL, -- Unix seconds
    revoked  INTEGER NOT NULL, -- Unix milliseconds
    reason   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX revocation_expires ON revocation (expires);

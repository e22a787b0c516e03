-- Entries of the log, canonical JSON, append-only.
CREATE TABLE entry (
    idx  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- Hash tiles: concatenated 32-byte hashes. A partial tile is overwritten by
-- its longer self; what it was before is its prefix.
CREATE TABLE tile (
    level INTEGER NOT NULL,
    n     INTEGER NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (level, n)
) STRICT, WITHOUT ROWID;

-- The newest signed checkpoint: one row.
CREATE TABLE checkpoint (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    size INTEGER NOT NULL,
    note BLOB NOT NULL
) STRICT;

-- Keys that were used up. A key may go when expires (Unix seconds) has passed.
CREATE TABLE replay (
    key     BLOB PRIMARY KEY,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Join tokens: each lets one machine join the broker's own fleet as one runner,
-- once. The token itself is nowhere.
CREATE TABLE join_token (
    hash    BLOB PRIMARY KEY, -- SHA-256 of the token
    runner  TEXT NOT NULL,    -- the SPIFFE ID that it gives
    made    INTEGER NOT NULL, -- Unix milliseconds
    expires INTEGER NOT NULL, -- Unix seconds
    used    INTEGER           -- Unix milliseconds; NULL until it was
) STRICT, WITHOUT ROWID;

-- Runners of which more is known than their evidence says: those that joined
-- here, and those that were banned.
CREATE TABLE runner (
    name       TEXT PRIMARY KEY, -- its SPIFFE ID, or ENTRY/ID where its evidence gives none
    joined     INTEGER,          -- Unix milliseconds; NULL for one that joined elsewhere
    evidence   TEXT,             -- what it joined by
    valid_from INTEGER NOT NULL, -- Unix seconds: what was issued to it before is worth nothing
    must_join  INTEGER NOT NULL, -- 1: what was issued to it is worth nothing until it joins again
    renewed    INTEGER,          -- Unix milliseconds, of its newest SVID
    expires    INTEGER,          -- Unix seconds, of its newest SVID
    banned     INTEGER,          -- Unix milliseconds; NULL for one in good standing
    reason     TEXT              -- of the ban
) STRICT, WITHOUT ROWID;

-- The highest sequence that each foreign trust domain's bundle ever had here, so
-- that an older one isn't taken after a restart either.
CREATE TABLE bundle_floor (
    domain   TEXT NOT NULL,
    source   TEXT NOT NULL,    -- where it came from: who configures another begins anew
    sequence INTEGER NOT NULL,
    keys     BLOB NOT NULL,    -- SHA-256 of the keys that the sequence stands for
    seen     INTEGER NOT NULL, -- Unix seconds
    PRIMARY KEY (domain, source)
) STRICT, WITHOUT ROWID;

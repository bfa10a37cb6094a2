-- The registrar's book. Times are UTC in milliseconds since 1970.

-- One-time tokens for a device's first certificate. Of a token only its hash is kept.
CREATE TABLE IF NOT EXISTS token (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    device      TEXT NOT NULL,
    hash        BLOB NOT NULL,      -- SHA-256 of the whole token
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    revoked     INTEGER,
    used        INTEGER,
    used_from   TEXT,               -- the address
    key         BLOB,               -- SHA-256 of the public key that it was used with
    certificate TEXT                -- what was issued: whoever repeats with that key gets it again, for a while
) STRICT;

-- Certificates that were signed. Bounded for each device: the oldest go.
CREATE TABLE IF NOT EXISTS enrolled (
    serial      TEXT NOT NULL PRIMARY KEY,
    device      TEXT NOT NULL,
    issued      INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    origin      TEXT NOT NULL       -- token 7, or renewal of <serial>
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS enrolled_by_device ON enrolled (device, issued);

-- Names that get no certificate.
CREATE TABLE IF NOT EXISTS blocked (
    device      TEXT NOT NULL PRIMARY KEY,
    since       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

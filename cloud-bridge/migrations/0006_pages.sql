-- What the pages need: acknowledgements, the gallery's ways in, sessions, and what operators did.
ALTER TABLE alert ADD COLUMN acknowledged INTEGER;      -- when
ALTER TABLE alert ADD COLUMN acknowledged_by TEXT;
ALTER TABLE alert ADD COLUMN note TEXT;
CREATE INDEX alert_open ON alert (received) WHERE acknowledged IS NULL;
CREATE INDEX alert_by_time ON alert (device, timestamp);

ALTER TABLE image ADD COLUMN thumbnail INTEGER NOT NULL DEFAULT 0; -- 1: the store has one
CREATE INDEX image_by_time ON image (timestamp);
CREATE INDEX image_of_device ON image (device, timestamp);
CREATE INDEX image_of_camera ON image (device, camera, timestamp);

CREATE TABLE session (
    digest      TEXT NOT NULL PRIMARY KEY,  -- of what the browser has
    name        TEXT NOT NULL,
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_of ON session (name);

CREATE TABLE audit (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    who         TEXT NOT NULL,
    action      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    detail      TEXT NOT NULL
) STRICT;

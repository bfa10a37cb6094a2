-- The catalog. Times are UTC in milliseconds since 1970; `timestamp` is the device's own, `received` the bridge's.
-- A record's id is made of boot, lane and seq, so one (device, id) is one (device, boot, seq) of its lane.

CREATE TABLE device (
    name        TEXT NOT NULL PRIMARY KEY,
    first_seen  INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL,
    state       TEXT,               -- online, offline, stopped
    state_at    INTEGER,
    version     TEXT,
    boot        TEXT,
    clock       TEXT,
    problems    TEXT,               -- JSON list of texts
    health      TEXT,               -- JSON, as it came
    health_at   INTEGER
) STRICT;

CREATE TABLE reading (
    device      TEXT NOT NULL,
    id          TEXT NOT NULL,
    boot        TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    timestamp   INTEGER NOT NULL,
    clock       TEXT NOT NULL,
    uptime      INTEGER NOT NULL,
    received    INTEGER NOT NULL,
    grp         TEXT NOT NULL,
    score       REAL,
    vals        TEXT NOT NULL,      -- JSON object of numbers
    PRIMARY KEY (device, id),
    UNIQUE (device, boot, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX reading_by_time ON reading (device, timestamp);

CREATE TABLE alert (
    device      TEXT NOT NULL,
    id          TEXT NOT NULL,
    boot        TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    timestamp   INTEGER NOT NULL,
    clock       TEXT NOT NULL,
    uptime      INTEGER NOT NULL,
    received    INTEGER NOT NULL,
    source      TEXT NOT NULL,
    reading     TEXT NOT NULL,      -- id of the reading it was raised over
    score       REAL NOT NULL,
    threshold   REAL NOT NULL,
    severity    TEXT NOT NULL,
    contributions TEXT NOT NULL,    -- JSON object of numbers
    vals        TEXT NOT NULL,      -- JSON object of numbers
    PRIMARY KEY (device, id),
    UNIQUE (device, boot, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX alert_by_arrival ON alert (received);

CREATE TABLE event (
    device      TEXT NOT NULL,
    id          TEXT NOT NULL,
    boot        TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    timestamp   INTEGER NOT NULL,
    clock       TEXT NOT NULL,
    uptime      INTEGER NOT NULL,
    received    INTEGER NOT NULL,
    event       TEXT NOT NULL,
    subject     TEXT,
    detail      TEXT NOT NULL,
    PRIMARY KEY (device, id),
    UNIQUE (device, boot, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_by_arrival ON event (received);

CREATE TABLE image (
    device      TEXT NOT NULL,
    id          TEXT NOT NULL,
    boot        TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    timestamp   INTEGER NOT NULL,
    clock       TEXT NOT NULL,
    uptime      INTEGER NOT NULL,
    received    INTEGER NOT NULL,
    camera      TEXT NOT NULL,
    object      TEXT NOT NULL,      -- key in the object store
    bytes       INTEGER NOT NULL,
    faces       INTEGER NOT NULL,
    cover       TEXT NOT NULL,
    software    TEXT NOT NULL,
    PRIMARY KEY (device, id),
    UNIQUE (device, boot, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_by_arrival ON image (received);
CREATE INDEX image_by_object ON image (object);

-- What arrived of each lane of each boot. Every seq is there once when count = max_seq - min_seq + 1.
CREATE TABLE sequence (
    device      TEXT NOT NULL,
    boot        TEXT NOT NULL,
    lane        TEXT NOT NULL,
    count       INTEGER NOT NULL,
    min_seq     INTEGER NOT NULL,
    max_seq     INTEGER NOT NULL,
    PRIMARY KEY (device, boot, lane)
) STRICT, WITHOUT ROWID;

-- Messages that were refused, with the reason. Bounded: the oldest go.
CREATE TABLE dead_letter (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    received    INTEGER NOT NULL,
    topic       TEXT NOT NULL,
    device      TEXT,
    record      TEXT,               -- its id, where one could be read
    reason      TEXT NOT NULL,
    bytes       INTEGER NOT NULL,
    payload     BLOB                -- JSON payloads, cut at 64 KiB; never an image
) STRICT;
CREATE UNIQUE INDEX dead_letter_once ON dead_letter (device, record) WHERE record IS NOT NULL;

-- What has to go on to somebody else, written in the transaction of the record itself.
CREATE TABLE outbox (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    target      TEXT NOT NULL,      -- aws
    device      TEXT NOT NULL,
    record      TEXT NOT NULL,
    payload     TEXT NOT NULL,
    created     INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    last_error  TEXT,
    done        INTEGER,
    UNIQUE (target, device, record)
) STRICT;
CREATE INDEX outbox_open ON outbox (target, number) WHERE done IS NULL;

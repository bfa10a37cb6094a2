-- The catalog in PostgreSQL: the same tables as in SQLite (the folder above). Times are UTC in milliseconds since 1970; `timestamp` is the device's own, `received` the bridge's.
-- A record's id is made of boot, lane and seq, so one (device, id) is one (device, boot, seq) of its lane.

CREATE TABLE device (
    name        TEXT NOT NULL PRIMARY KEY,
    first_seen  BIGINT NOT NULL,
    last_seen   BIGINT NOT NULL,
    state       TEXT,               -- online, offline, stopped
    state_at    BIGINT,
    version     TEXT,
    boot        TEXT,
    clock       TEXT,
    problems    TEXT,               -- JSON list of texts
    health      TEXT,               -- JSON, as it came
    health_at   BIGINT
);

CREATE TABLE reading (
    device      TEXT NOT NULL,
    id          TEXT NOT NULL,
    boot        TEXT NOT NULL,
    seq         BIGINT NOT NULL,
    timestamp   BIGINT NOT NULL,
    clock       TEXT NOT NULL,
    uptime      BIGINT NOT NULL,
    received    BIGINT NOT NULL,
    grp         TEXT NOT NULL,
    score       DOUBLE PRECISION,
    vals        TEXT NOT NULL,      -- JSON object of numbers
    PRIMARY KEY (device, id),
    UNIQUE (device, boot, seq)
);
CREATE INDEX reading_by_time ON reading (device, timestamp);
CREATE INDEX reading_by_arrival ON reading (received);

CREATE TABLE alert (
    device      TEXT NOT NULL,
    id          TEXT NOT NULL,
    boot        TEXT NOT NULL,
    seq         BIGINT NOT NULL,
    timestamp   BIGINT NOT NULL,
    clock       TEXT NOT NULL,
    uptime      BIGINT NOT NULL,
    received    BIGINT NOT NULL,
    source      TEXT NOT NULL,
    reading     TEXT NOT NULL,      -- id of the reading it was raised over
    score       DOUBLE PRECISION NOT NULL,
    threshold   DOUBLE PRECISION NOT NULL,
    severity    TEXT NOT NULL,
    contributions TEXT NOT NULL,    -- JSON object of numbers
    vals        TEXT NOT NULL,      -- JSON object of numbers
    PRIMARY KEY (device, id),
    UNIQUE (device, boot, seq)
);
CREATE INDEX alert_by_arrival ON alert (received);

CREATE TABLE event (
    device      TEXT NOT NULL,
    id          TEXT NOT NULL,
    boot        TEXT NOT NULL,
    seq         BIGINT NOT NULL,
    timestamp   BIGINT NOT NULL,
    clock       TEXT NOT NULL,
    uptime      BIGINT NOT NULL,
    received    BIGINT NOT NULL,
    event       TEXT NOT NULL,
    subject     TEXT,
    detail      TEXT NOT NULL,
    PRIMARY KEY (device, id),
    UNIQUE (device, boot, seq)
);
CREATE INDEX event_by_arrival ON event (received);

CREATE TABLE image (
    device      TEXT NOT NULL,
    id          TEXT NOT NULL,
    boot        TEXT NOT NULL,
    seq         BIGINT NOT NULL,
    timestamp   BIGINT NOT NULL,
    clock       TEXT NOT NULL,
    uptime      BIGINT NOT NULL,
    received    BIGINT NOT NULL,
    camera      TEXT NOT NULL,
    object      TEXT NOT NULL,      -- key in the object store
    bytes       BIGINT NOT NULL,
    faces       BIGINT NOT NULL,
    cover       TEXT NOT NULL,
    software    TEXT NOT NULL,
    PRIMARY KEY (device, id),
    UNIQUE (device, boot, seq)
);
CREATE INDEX image_by_arrival ON image (received);
CREATE INDEX image_by_object ON image (object);

-- What arrived of each lane of each boot. Every seq is there once when count = max_seq - min_seq + 1.
CREATE TABLE sequence (
    device      TEXT NOT NULL,
    boot        TEXT NOT NULL,
    lane        TEXT NOT NULL,
    count       BIGINT NOT NULL,
    min_seq     BIGINT NOT NULL,
    max_seq     BIGINT NOT NULL,
    expired     BIGINT NOT NULL DEFAULT 0, -- removed by retention: rows + expired = count
    PRIMARY KEY (device, boot, lane)
);

-- Messages that were refused, with the reason. Bounded: the oldest go.
CREATE TABLE dead_letter (
    number      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received    BIGINT NOT NULL,
    topic       TEXT NOT NULL,
    device      TEXT,
    record      TEXT,               -- its id, where one could be read
    reason      TEXT NOT NULL,
    bytes       BIGINT NOT NULL,
    payload     BYTEA,              -- JSON payloads, cut at 64 KiB; never an image
    object      TEXT                -- the key of the object that holds it whole
);
CREATE UNIQUE INDEX dead_letter_once ON dead_letter (device, record) WHERE record IS NOT NULL;

-- What has to go on to somebody else, written in the transaction of the record itself.
CREATE TABLE outbox (
    number      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target      TEXT NOT NULL,      -- aws
    device      TEXT NOT NULL,
    record      TEXT NOT NULL,
    payload     TEXT NOT NULL,
    created     BIGINT NOT NULL,
    attempts    BIGINT NOT NULL DEFAULT 0,
    refusals    BIGINT NOT NULL DEFAULT 0, -- of this row itself, not of everything
    last_error  TEXT,
    done        BIGINT,
    failed      BIGINT,             -- when it was set aside
    UNIQUE (target, device, record)
);
CREATE INDEX outbox_open ON outbox (target, number) WHERE done IS NULL AND failed IS NULL;
CREATE INDEX outbox_of_device ON outbox (target, device) WHERE done IS NULL AND failed IS NULL;
CREATE INDEX outbox_done ON outbox (done) WHERE done IS NOT NULL;
CREATE INDEX outbox_failed ON outbox (target) WHERE failed IS NOT NULL;

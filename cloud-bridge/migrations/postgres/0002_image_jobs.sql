-- Pictures that were posted, and how far their veiling is. Times are the database's own, in milliseconds since 1970.
CREATE TABLE image_job (
    id          TEXT NOT NULL PRIMARY KEY,  -- a UUID of version 7; the keys of both objects come from it
    received    BIGINT NOT NULL,
    changed     BIGINT NOT NULL,
    state       TEXT NOT NULL,      -- queued, working, done, failed
    due         BIGINT NOT NULL,   -- queued: not before; working: the end of the lease
    worker      TEXT,               -- who works on it
    attempts    BIGINT NOT NULL DEFAULT 0,
    reason      TEXT,               -- why it failed, or its last attempt
    bytes       BIGINT NOT NULL,
    digest      TEXT NOT NULL,      -- SHA-256 of the raw picture
    idempotency TEXT UNIQUE,        -- SHA-256 of the Idempotency-Key
    faces       BIGINT,
    raw         BIGINT NOT NULL DEFAULT 1  -- whether the raw picture is still in the input place
);
CREATE INDEX image_job_open ON image_job (due) WHERE state IN ('queued', 'working');
CREATE INDEX image_job_raw ON image_job (id) WHERE raw = 1;
CREATE INDEX image_job_ended ON image_job (state, changed);

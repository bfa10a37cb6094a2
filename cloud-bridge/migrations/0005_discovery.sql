-- What Home Assistant was told of, so that it can be told again, and that it is gone.
CREATE TABLE discovery (
    device      TEXT NOT NULL,
    thing       TEXT NOT NULL,      -- such as reading/env/temperature
    seen        INTEGER NOT NULL,   -- about when it was seen last, by the bridge's clock
    PRIMARY KEY (device, thing)
) STRICT, WITHOUT ROWID;
CREATE INDEX discovery_by_time ON discovery (seen);

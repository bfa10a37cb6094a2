-- Films that people asked for on the pages.
CREATE TABLE film (
    id          TEXT NOT NULL PRIMARY KEY,
    asked       BIGINT NOT NULL,           -- milliseconds since 1970, like all times
    asked_by    TEXT NOT NULL,
    device      TEXT NOT NULL,
    camera      TEXT NOT NULL,
    wanted      TEXT NOT NULL,              -- the rest of it, as JSON
    state       TEXT NOT NULL,              -- waiting, working, done, failed
    holder      TEXT NOT NULL DEFAULT '',   -- which bridge works on it
    changed     BIGINT NOT NULL,           -- when that one was heard of last
    looked      BIGINT NOT NULL DEFAULT 0, -- images that were looked at
    images      BIGINT NOT NULL DEFAULT 0, -- of so many
    frames      BIGINT NOT NULL DEFAULT 0,
    oldest      BIGINT,                    -- when the first of its images was received
    object      TEXT,                       -- its key in the store, once it is done
    bytes       BIGINT NOT NULL DEFAULT 0,
    attempts    BIGINT NOT NULL DEFAULT 0,  -- times that it was begun
    note        TEXT                        -- what was left out, or why there is none
);
CREATE INDEX film_asked ON film (asked);

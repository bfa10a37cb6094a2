-- What retention has removed of a lane of a boot: rows + expired = count, for ever.
ALTER TABLE sequence ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
CREATE INDEX reading_by_arrival ON reading (received);
CREATE INDEX outbox_done ON outbox (done) WHERE done IS NOT NULL;

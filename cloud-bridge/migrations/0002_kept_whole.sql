-- A refused image, or a payload of more than 64 KiB, is kept whole in the object store before it is acknowledged.
ALTER TABLE dead_letter ADD COLUMN object TEXT;

-- What a target refuses for ever is set aside, so that it does not hold up what stands behind it.
ALTER TABLE outbox ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;  -- of this row itself, not of everything
ALTER TABLE outbox ADD COLUMN failed INTEGER;                       -- when it was set aside
DROP INDEX outbox_open;
CREATE INDEX outbox_open ON outbox (target, number) WHERE done IS NULL AND failed IS NULL;
CREATE INDEX outbox_failed ON outbox (target) WHERE failed IS NOT NULL;

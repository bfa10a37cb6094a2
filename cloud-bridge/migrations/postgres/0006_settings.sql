-- Settings from afar: what devices tell of theirs, and what is wanted of them.
ALTER TABLE device ADD COLUMN reported TEXT;        -- the last config/reported, JSON
ALTER TABLE device ADD COLUMN reported_at BIGINT;
ALTER TABLE device ADD COLUMN answered TEXT;        -- the id of the wish that it answers
ALTER TABLE device ADD COLUMN desired TEXT;         -- config/desired, JSON
ALTER TABLE device ADD COLUMN desired_id TEXT;
ALTER TABLE device ADD COLUMN desired_at BIGINT;
ALTER TABLE device ADD COLUMN desired_by TEXT;
CREATE INDEX device_desired ON device (name) WHERE desired IS NOT NULL;

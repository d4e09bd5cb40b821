-- What the sandbox of a run lacked of what the design asks for: names, sorted, with commas
-- between; empty where the sandbox was whole, or where there was none.

ALTER TABLE realisations ADD COLUMN lacking TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN lacking TEXT NOT NULL DEFAULT '';
ALTER TABLE proofs ADD COLUMN lacking TEXT NOT NULL DEFAULT '';

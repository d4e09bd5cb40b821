-- The first schema. README.md beside this file has a paragraph on every table.
-- Digests are BLOBs of 32 bytes; times are whole seconds since 1970 in UTC and are
-- never hashed; paths in the store are the base name, `<52 characters>-<name>`.

CREATE TABLE directories (
    digest  BLOB PRIMARY KEY CHECK (length(digest) = 32),
    message BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE objects (
    id            INTEGER PRIMARY KEY,
    path          TEXT    NOT NULL UNIQUE CHECK (length(path) > 53),
    tree          BLOB    NOT NULL REFERENCES directories (digest),
    size_bytes    INTEGER NOT NULL CHECK (size_bytes >= 0),
    entries       INTEGER NOT NULL CHECK (entries >= 0),
    registered_at INTEGER NOT NULL
) STRICT;

CREATE TABLE self_positions (
    object INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
    file   TEXT    NOT NULL,
    offset INTEGER NOT NULL CHECK (offset >= 0),
    PRIMARY KEY (object, file, offset)
) STRICT, WITHOUT ROWID;

CREATE TABLE object_references (
    object INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
    target INTEGER NOT NULL REFERENCES objects (id),
    file   TEXT    NOT NULL,
    offset INTEGER NOT NULL CHECK (offset >= 0),
    PRIMARY KEY (object, target, file)
) STRICT, WITHOUT ROWID;

CREATE INDEX object_references_by_target ON object_references (target);

CREATE TABLE actions (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    name   TEXT NOT NULL,
    json   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE realisations (
    action BLOB    NOT NULL REFERENCES actions (digest),
    output TEXT    NOT NULL,
    object INTEGER NOT NULL REFERENCES objects (id),
    origin TEXT    NOT NULL CHECK (origin IN ('built', 'fetched', 'unpacked')),
    PRIMARY KEY (action, output)
) STRICT, WITHOUT ROWID;

CREATE INDEX realisations_by_object ON realisations (object);

CREATE TABLE builds (
    id                INTEGER PRIMARY KEY,
    action            BLOB    NOT NULL REFERENCES actions (digest),
    started_at        INTEGER NOT NULL,
    wall_ms           INTEGER NOT NULL CHECK (wall_ms >= 0),
    cpu_ms            INTEGER NOT NULL CHECK (cpu_ms >= 0),
    peak_memory_bytes INTEGER NOT NULL CHECK (peak_memory_bytes >= 0),
    outcome           TEXT    NOT NULL,
    log               TEXT
) STRICT;

CREATE INDEX builds_by_action ON builds (action, id);

CREATE TABLE proofs (
    id         INTEGER PRIMARY KEY,
    action     BLOB    NOT NULL REFERENCES actions (digest),
    proved_at  INTEGER NOT NULL,
    rebuilds   INTEGER NOT NULL CHECK (rebuilds > 0),
    variations TEXT    NOT NULL,
    verdict    TEXT    NOT NULL CHECK (verdict IN ('reproducible', 'different')),
    difference TEXT
) STRICT;

CREATE INDEX proofs_by_action ON proofs (action, id);

CREATE TABLE layers (
    plan       BLOB PRIMARY KEY CHECK (length(plan) = 32),
    diff_id    BLOB    NOT NULL CHECK (length(diff_id) = 32),
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0)
) STRICT, WITHOUT ROWID;

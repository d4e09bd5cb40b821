-- What garbage collection, repair and scheduling need. The step in Rust that belongs to
-- it moves the messages of `directories` into `listings`, one row for each object, so
-- that they go with their object.

CREATE TABLE listings (
    object   INTEGER PRIMARY KEY REFERENCES objects (id) ON DELETE CASCADE,
    messages BLOB NOT NULL
) STRICT;

-- Without the foreign key of `tree`; SQLite cannot drop one from a table.
CREATE TABLE new_objects (
    id            INTEGER PRIMARY KEY,
    path          TEXT    NOT NULL UNIQUE CHECK (length(path) > 53),
    tree          BLOB    NOT NULL CHECK (length(tree) = 32),
    size_bytes    INTEGER NOT NULL CHECK (size_bytes >= 0),
    entries       INTEGER NOT NULL CHECK (entries >= 0),
    registered_at INTEGER NOT NULL,
    used_at       INTEGER NOT NULL,
    synced        INTEGER NOT NULL DEFAULT 0 CHECK (synced IN (0, 1))
) STRICT;

INSERT INTO new_objects (id, path, tree, size_bytes, entries, registered_at, used_at)
SELECT id, path, tree, size_bytes, entries, registered_at, registered_at FROM objects;
DROP TABLE objects;
ALTER TABLE new_objects RENAME TO objects;
CREATE INDEX objects_not_synced ON objects (id) WHERE synced = 0;

CREATE TABLE edges (
    object INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
    target INTEGER NOT NULL REFERENCES objects (id),
    PRIMARY KEY (object, target)
) STRICT, WITHOUT ROWID;

CREATE INDEX edges_by_target ON edges (target);
INSERT INTO edges SELECT DISTINCT object, target FROM object_references;

CREATE TABLE new_references (
    object INTEGER NOT NULL,
    target INTEGER NOT NULL,
    file   TEXT    NOT NULL,
    offset INTEGER NOT NULL CHECK (offset >= 0),
    PRIMARY KEY (object, target, file),
    FOREIGN KEY (object, target) REFERENCES edges (object, target) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

INSERT INTO new_references SELECT object, target, file, offset FROM object_references;
DROP TABLE object_references;
ALTER TABLE new_references RENAME TO object_references;

CREATE TABLE roots (
    name   TEXT PRIMARY KEY CHECK (length(name) > 0),
    kind   TEXT    NOT NULL CHECK (kind IN ('name', 'link')),
    object INTEGER NOT NULL REFERENCES objects (id)
) STRICT, WITHOUT ROWID;

CREATE INDEX roots_by_object ON roots (object);

CREATE TABLE addresses (
    action   BLOB    NOT NULL REFERENCES actions (digest),
    position INTEGER NOT NULL CHECK (position >= 0),
    url      TEXT    NOT NULL,
    PRIMARY KEY (action, position)
) STRICT, WITHOUT ROWID;

ALTER TABLE builds ADD COLUMN package TEXT NOT NULL DEFAULT '';
CREATE INDEX builds_by_package ON builds (package, id);

CREATE TABLE marks (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Layers that were compressed: their tar need not be kept beside them.

CREATE TABLE encoded_layers (
    plan       BLOB    NOT NULL CHECK (length(plan) = 32),
    encoder    TEXT    NOT NULL,
    diff_id    BLOB    NOT NULL CHECK (length(diff_id) = 32),
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (plan, encoder)
) STRICT, WITHOUT ROWID;

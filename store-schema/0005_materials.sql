-- What bills of materials need.

CREATE TABLE checksums (
    blob   BLOB PRIMARY KEY CHECK (length(blob) = 32),
    sha1   BLOB NOT NULL CHECK (length(sha1) = 20),
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32)
) STRICT, WITHOUT ROWID;

CREATE TABLE links (
    action BLOB NOT NULL REFERENCES actions (digest),
    output TEXT NOT NULL,
    file   TEXT NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (action, output, file)
) STRICT, WITHOUT ROWID;

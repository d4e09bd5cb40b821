-- Where blobs were sent: a registry that has one in another repository mounts it.

CREATE TABLE pushes (
    host       TEXT NOT NULL,
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    repository TEXT NOT NULL,
    PRIMARY KEY (host, digest, repository)
) STRICT, WITHOUT ROWID;

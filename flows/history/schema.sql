-- The layout of sqlite.py's file, version 1. A statement ends where its line ends in a semicolon.
CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    title TEXT NOT NULL,
    updated REAL NOT NULL,
    messages INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX conversations_listed ON conversations (user, updated);
CREATE TABLE messages (
    position INTEGER PRIMARY KEY,
    conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    id TEXT NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    created REAL NOT NULL,
    rating INTEGER NOT NULL,
    details TEXT NOT NULL,
    UNIQUE (conversation, id)
) STRICT;
CREATE INDEX messages_in_order ON messages (conversation, position);

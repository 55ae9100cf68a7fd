# SPDX-License-Identifier: Apache-2.0
"""The tables of a memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

VERSION = 1
"""Of the schema, kept as SQLite's user_version."""

APPLICATION_ID = 0x4D564C4D
"""'MVLM': tells this file from other SQLite files (SQLite, PRAGMA application_id)."""

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE texts (
    id INTEGER PRIMARY KEY, shown TEXT NOT NULL, searched TEXT NOT NULL, UNIQUE (searched, shown)
);
CREATE TABLE vectors (text_id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (searched, content='texts', content_rowid='id',
    tokenize='porter unicode61 remove_diacritics 2');
CREATE TABLE records (
    id INTEGER PRIMARY KEY, text_id INTEGER NOT NULL REFERENCES texts (id), stamp_ns INTEGER NOT NULL,
    camera TEXT NOT NULL, kind TEXT NOT NULL, confidence REAL NOT NULL, question TEXT NOT NULL,
    answer TEXT NOT NULL, model_id TEXT NOT NULL, frame_id TEXT NOT NULL, topic TEXT NOT NULL,
    bag TEXT NOT NULL, position_frame TEXT, x REAL, y REAL, z REAL, kept_ns INTEGER NOT NULL,
    UNIQUE (text_id, stamp_ns, camera, kind, topic, bag)
);
CREATE INDEX records_stamp ON records (stamp_ns);
CREATE INDEX records_camera ON records (camera, stamp_ns);
CREATE TABLE thumbnails (record_id INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE TRIGGER text_added AFTER INSERT ON texts BEGIN
    INSERT INTO words (rowid, searched) VALUES (new.id, new.searched);
END;
CREATE TRIGGER text_gone AFTER DELETE ON texts BEGIN
    INSERT INTO words (words, rowid, searched) VALUES ('delete', old.id, old.searched);
    DELETE FROM vectors WHERE text_id = old.id;
END;
CREATE TRIGGER record_gone AFTER DELETE ON records BEGIN
    DELETE FROM thumbnails WHERE record_id = old.id;
END;
"""

INDEXES = """
CREATE INDEX IF NOT EXISTS records_kind ON records (kind, stamp_ns);
CREATE INDEX IF NOT EXISTS records_place ON records (x) WHERE x IS NOT NULL;
"""
"""Memories of former releases lack them; whoever opens one to write makes them. They only save time."""


def statements(script: str) -> Iterator[str]:
    """The statements of a script; `executescript` would commit what has begun."""
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            yield part
            part = ""

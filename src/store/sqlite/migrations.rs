//! The tables and their history.

use crate::store::sql::with_final_states;
use rusqlite::Connection;

/// Applied in this order. The schema version of a file is the number of scripts that were applied. The effect of a released
/// script never changes.
pub(super) const MIGRATIONS: &[&str] = &[
    FIRST,
    TEXTS_BY_NUMBER,
    TEXTS_IN_PIECES,
    SERVICE,
    ENDS,
    TRACES_WITH_SPANS,
    LLM_CALLS,
    ROLLOUT_PAGES,
    COUNTS,
    SPAN_PAGES,
    NUMBER_LISTS,
    SPAN_COUNTS,
    EXPORTS,
    ATTEMPT_COUNT,
    RECORDS,
    PIECE_COUNTS,
    SPAN_KINDS,
];

const FIRST: &str = "
CREATE TABLE rollout (
    rollout_id TEXT NOT NULL PRIMARY KEY,
    registered INTEGER NOT NULL,
    last_sequence_id INTEGER NOT NULL,
    start_ns INTEGER NOT NULL,
    json TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX rollout_by_start ON rollout (start_ns, rollout_id);
CREATE TABLE attempt (
    rollout_id TEXT NOT NULL,
    attempt_id TEXT NOT NULL,
    sequence_id INTEGER NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (rollout_id, attempt_id)
) WITHOUT ROWID;
CREATE TABLE span (
    id INTEGER PRIMARY KEY,
    rollout_id TEXT NOT NULL,
    attempt_id TEXT NOT NULL,
    sequence_id INTEGER NOT NULL,
    span_id TEXT NOT NULL,
    start_ns INTEGER,
    end_ns INTEGER,
    is_error INTEGER NOT NULL,
    json TEXT NOT NULL,
    UNIQUE (rollout_id, attempt_id, span_id)
);
CREATE INDEX span_in_order ON span (rollout_id, sequence_id, start_ns, id);
CREATE INDEX span_by_end ON span (end_ns, start_ns);
CREATE INDEX span_errors ON span (rollout_id) WHERE is_error = 1;
CREATE TABLE blob (
    hash BLOB NOT NULL PRIMARY KEY,
    data BLOB NOT NULL
);
CREATE TABLE span_blob (
    span INTEGER NOT NULL,
    attribute TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (span, attribute)
) WITHOUT ROWID;
CREATE INDEX span_blob_by_hash ON span_blob (hash);
CREATE TRIGGER span_removed AFTER DELETE ON span BEGIN
    DELETE FROM span_blob WHERE span = OLD.id;
END;
CREATE TRIGGER span_blob_removed AFTER DELETE ON span_blob
WHEN NOT EXISTS (SELECT 1 FROM span_blob WHERE hash = OLD.hash) BEGIN
    DELETE FROM blob WHERE hash = OLD.hash;
END;
";

/// Texts get numbers, because an index of hashes writes to pages all over the file, and one of numbers to its last page.
const TEXTS_BY_NUMBER: &str = "
CREATE TABLE text (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE span_text (
    span INTEGER NOT NULL,
    attribute TEXT NOT NULL,
    text INTEGER NOT NULL,
    PRIMARY KEY (span, attribute)
) WITHOUT ROWID;
INSERT INTO text (id, hash, data) SELECT rowid, hash, data FROM blob;
INSERT INTO span_text (span, attribute, text)
    SELECT span, attribute, blob.rowid FROM span_blob JOIN blob ON blob.hash = span_blob.hash;
CREATE INDEX span_text_by_text ON span_text (text);
DROP TRIGGER span_removed;
DROP TRIGGER span_blob_removed;
DROP TABLE span_blob;
DROP TABLE blob;
CREATE TRIGGER span_removed AFTER DELETE ON span BEGIN
    DELETE FROM span_text WHERE span = OLD.id;
END;
CREATE TRIGGER span_text_removed AFTER DELETE ON span_text
WHEN NOT EXISTS (SELECT 1 FROM span_text WHERE text = OLD.text) BEGIN
    DELETE FROM text WHERE id = OLD.text;
END;
";

/// A span refers to the last piece of a value, and each piece to the one before it. Triggers list the pieces that may have
/// lost their last reference in `loose`, because a chain of pieces can be longer than the depth to which triggers nest.
const TEXTS_IN_PIECES: &str = "
ALTER TABLE text ADD COLUMN parent INTEGER;
CREATE INDEX text_by_parent ON text (parent) WHERE parent IS NOT NULL;
CREATE TABLE loose (text INTEGER PRIMARY KEY);
DROP TRIGGER span_text_removed;
CREATE TRIGGER span_text_removed AFTER DELETE ON span_text BEGIN
    INSERT OR IGNORE INTO loose VALUES (OLD.text);
END;
CREATE TRIGGER text_removed AFTER DELETE ON text WHEN OLD.parent IS NOT NULL BEGIN
    INSERT OR IGNORE INTO loose VALUES (OLD.parent);
END;
";

/// What trainers and runners share: the queue, workers and resources; and the owners of traces.
const SERVICE: &str = "
CREATE TABLE queue (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout_id TEXT NOT NULL UNIQUE
);
CREATE TABLE worker (
    position INTEGER PRIMARY KEY,
    worker_id TEXT NOT NULL UNIQUE,
    json TEXT NOT NULL
);
CREATE TABLE resources (
    position INTEGER PRIMARY KEY,
    resources_id TEXT NOT NULL UNIQUE,
    update_ns INTEGER NOT NULL,
    json TEXT NOT NULL
);
CREATE TABLE trace (
    trace_id TEXT NOT NULL PRIMARY KEY,
    rollout_id TEXT NOT NULL,
    attempt_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX rollout_by_status ON rollout (json_extract(json, '$.status'));
CREATE INDEX attempt_in_order ON attempt (rollout_id, sequence_id);
";

/// The log of ended rollouts by position, beginning at 0; and an index for the removal of rollouts.
const ENDS: &str = "
CREATE TABLE terminal (
    position INTEGER PRIMARY KEY,
    rollout_id TEXT NOT NULL
);
INSERT INTO terminal (position, rollout_id)
    SELECT ROW_NUMBER() OVER (ORDER BY json_extract(json, '$.end_time'), start_ns, rollout_id) - 1, rollout_id
    FROM rollout WHERE json_extract(json, '$.status') IN ({final_states});
CREATE INDEX trace_by_rollout ON trace (rollout_id);
";

/// A trace is removed with its last span. The trace of an older file is assumed to last as long as its attempt. `loose` gets
/// a name that says what it lists; it is always empty between transactions.
const TRACES_WITH_SPANS: &str = "
ALTER TABLE trace ADD COLUMN last_span INTEGER NOT NULL DEFAULT 0;
UPDATE trace SET last_span = newest.id
    FROM (SELECT rollout_id, attempt_id, MAX(id) AS id FROM span GROUP BY rollout_id, attempt_id) AS newest
    WHERE newest.rollout_id = trace.rollout_id AND newest.attempt_id = trace.attempt_id;
DELETE FROM trace WHERE last_span = 0;
DROP TRIGGER span_text_removed;
DROP TRIGGER text_removed;
DROP TABLE loose;
CREATE TABLE orphaned_text (text INTEGER PRIMARY KEY);
CREATE TRIGGER span_text_removed AFTER DELETE ON span_text BEGIN
    INSERT OR IGNORE INTO orphaned_text VALUES (OLD.text);
END;
CREATE TRIGGER text_removed AFTER DELETE ON text WHEN OLD.parent IS NOT NULL BEGIN
    INSERT OR IGNORE INTO orphaned_text VALUES (OLD.parent);
END;
";

/// LLM calls are counted without reading spans. Spans of older versions are classified by the name of their operation.
const LLM_CALLS: &str = "
ALTER TABLE span ADD COLUMN is_llm_call INTEGER NOT NULL DEFAULT 0;
UPDATE span SET is_llm_call = 1
    WHERE json_extract(json, '$.attributes.\"gen_ai.operation.name\"') IN ('chat', 'generate_content', 'text_completion');
CREATE INDEX span_llm_calls ON span (rollout_id) WHERE is_llm_call = 1;
";

/// The rollouts of a state in the order of listings, and those of them that were registered.
const ROLLOUT_PAGES: &str = "
DROP INDEX IF EXISTS rollout_by_status;
CREATE INDEX IF NOT EXISTS rollout_by_state ON rollout (json_extract(json, '$.status'), start_ns, rollout_id);
CREATE INDEX IF NOT EXISTS registered_by_state ON rollout (json_extract(json, '$.status'), start_ns, rollout_id) WHERE registered;
";

/// The numbers of rows are kept, so that a health check takes as long for a large file as for a small one.
const COUNTS: &str = "
CREATE TABLE row_count (rollouts INTEGER NOT NULL, attempts INTEGER NOT NULL, spans INTEGER NOT NULL);
INSERT INTO row_count
    SELECT (SELECT COUNT(*) FROM rollout), (SELECT COUNT(*) FROM attempt), (SELECT COUNT(*) FROM span);
CREATE TRIGGER rollout_added AFTER INSERT ON rollout BEGIN UPDATE row_count SET rollouts = rollouts + 1; END;
CREATE TRIGGER rollout_gone AFTER DELETE ON rollout BEGIN UPDATE row_count SET rollouts = rollouts - 1; END;
CREATE TRIGGER attempt_added AFTER INSERT ON attempt BEGIN UPDATE row_count SET attempts = attempts + 1; END;
CREATE TRIGGER attempt_gone AFTER DELETE ON attempt BEGIN UPDATE row_count SET attempts = attempts - 1; END;
CREATE TRIGGER span_added AFTER INSERT ON span BEGIN UPDATE row_count SET spans = spans + 1; END;
CREATE TRIGGER span_gone AFTER DELETE ON span BEGIN UPDATE row_count SET spans = spans - 1; END;
";

/// The spans of a rollout in the order in which they were stored: an index ends with the row's number.
const SPAN_PAGES: &str = "
CREATE INDEX IF NOT EXISTS span_by_rollout ON span (rollout_id);
";

/// No change of the tables: a program before this version would take the lists that `number_lists` names for attributes.
const NUMBER_LISTS: &str = "";

/// New spans are counted once per batch: an insertion with a trigger makes SQLite copy each page that it changes, so that it
/// could be undone.
const SPAN_COUNTS: &str = "DROP TRIGGER span_added;";

/// How far exports have read. They read spans by number, so that the number of a removed span is not given again.
const EXPORTS: &str = "
CREATE TABLE export_cursor (name TEXT NOT NULL PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
ALTER TABLE row_count ADD COLUMN last_removed INTEGER NOT NULL DEFAULT 0;
DROP TRIGGER span_gone;
CREATE TRIGGER span_gone AFTER DELETE ON span BEGIN
    UPDATE row_count SET spans = spans - 1, last_removed = MAX(last_removed, OLD.id);
END;
";

/// `INSERT OR REPLACE`, which older programs use, removes a row without the trigger of a removal. An attempt is counted before it is
/// inserted, if it is new.
const ATTEMPT_COUNT: &str = "
DROP TRIGGER attempt_added;
CREATE TRIGGER attempt_added BEFORE INSERT ON attempt
WHEN NOT EXISTS (SELECT 1 FROM attempt WHERE rollout_id = NEW.rollout_id AND attempt_id = NEW.attempt_id) BEGIN
    UPDATE row_count SET attempts = attempts + 1;
END;
UPDATE row_count SET attempts = (SELECT COUNT(*) FROM attempt);
";

/// New spans are records, with an empty object as JSON; those of older programs have no record. Older programs go on writing beside this one.
const RECORDS: &str = "ALTER TABLE span ADD COLUMN record BLOB;";

/// The pieces of texts and their bytes are counted, so that the size of what is shared is known without reading it. New ones are counted
/// with their batch, as spans are.
const PIECE_COUNTS: &str = "
ALTER TABLE row_count ADD COLUMN pieces INTEGER NOT NULL DEFAULT 0;
ALTER TABLE row_count ADD COLUMN piece_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE row_count SET pieces = (SELECT COUNT(*) FROM text), piece_bytes = (SELECT COALESCE(SUM(LENGTH(data)), 0) FROM text);
CREATE TRIGGER text_gone AFTER DELETE ON text BEGIN
    UPDATE row_count SET pieces = pieces - 1, piece_bytes = piece_bytes - LENGTH(OLD.data);
END;
";

/// One index in place of two: a commit writes the page of each rollout in each index.
const SPAN_KINDS: &str = "
DROP INDEX IF EXISTS span_by_rollout;
DROP INDEX IF EXISTS span_llm_calls;
CREATE INDEX IF NOT EXISTS span_by_kind ON span (rollout_id, is_llm_call);
";

/// The newest schema version that this program knows.
pub(super) fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Applies the scripts that a database of this version lacks, within a transaction of the caller.
pub(super) fn apply_from(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    let applied = usize::try_from(version).unwrap_or_default();
    MIGRATIONS.iter().skip(applied).try_for_each(|script| connection.execute_batch(&with_final_states(script)))
}

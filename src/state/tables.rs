//! The tables of the state file and their versions.
//!
//! `user_version` counts the formats. An older file is brought forward here; a
//! newer one is refused, because writing to it could lose what it knows.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{Result, StateError};

/// The statements that lead from one format to the next.
const FORMATS: [&str; 7] = [FIRST, SUSPECTED_ABSENCES, POLL_NUMBERS, OUTBOX, SCHEMA_CHANGES, SWEEPS, LATE_ENTRY];

const FIRST: &str = "
CREATE TABLE stream (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    site TEXT NOT NULL DEFAULT '',
    incarnation INTEGER NOT NULL DEFAULT 1,
    frontier INTEGER,
    fingerprint TEXT,
    epoch INTEGER NOT NULL DEFAULT 1,
    seq INTEGER NOT NULL DEFAULT 0,
    gen INTEGER NOT NULL DEFAULT 0,
    polls_started INTEGER NOT NULL DEFAULT 0,
    poll_done INTEGER NOT NULL DEFAULT 0,
    complete_as_of INTEGER,
    event_created INTEGER,
    schema_due INTEGER NOT NULL DEFAULT 0,
    event_view REAL
) STRICT;
INSERT INTO stream (only) VALUES (1);
CREATE TABLE gaps (lo INTEGER PRIMARY KEY, hi INTEGER NOT NULL, first_seen INTEGER NOT NULL,
    last_asked INTEGER NOT NULL) STRICT;
CREATE TABLE marks (type TEXT NOT NULL, id INTEGER NOT NULL, gen INTEGER NOT NULL, kinds INTEGER NOT NULL,
    since INTEGER NOT NULL, poll INTEGER NOT NULL, first_event INTEGER, last_event INTEGER, event_created INTEGER,
    events INTEGER NOT NULL, expected TEXT, attempts INTEGER NOT NULL, due_at INTEGER NOT NULL, prio INTEGER NOT NULL,
    PRIMARY KEY (type, id)) STRICT, WITHOUT ROWID;
CREATE INDEX marks_by_turn ON marks (prio, since);
CREATE TABLE touched (gen INTEGER NOT NULL, type TEXT NOT NULL, id INTEGER NOT NULL, kinds INTEGER NOT NULL,
    since INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (type, gen, id)) STRICT, WITHOUT ROWID;
CREATE INDEX touched_by_key ON touched (type, id, gen);
CREATE INDEX touched_by_age ON touched (at);
CREATE TABLE sweeps (type TEXT PRIMARY KEY, gen INTEGER NOT NULL, since INTEGER NOT NULL, due_at INTEGER NOT NULL)
    STRICT;
CREATE TABLE reads (rv INTEGER PRIMARY KEY, type TEXT NOT NULL, at INTEGER NOT NULL) STRICT;
CREATE TABLE rowmeta (type TEXT NOT NULL, id INTEGER NOT NULL, rv INTEGER NOT NULL, state INTEGER NOT NULL,
    updated_at INTEGER, hash BLOB NOT NULL, name INTEGER NOT NULL, last_event INTEGER, read_at INTEGER NOT NULL,
    PRIMARY KEY (type, id)) STRICT, WITHOUT ROWID;
CREATE TABLE buckets (type TEXT NOT NULL, bucket INTEGER NOT NULL, count INTEGER NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY (type, bucket)) STRICT, WITHOUT ROWID;
CREATE TABLE absences (type TEXT NOT NULL, at INTEGER NOT NULL, count INTEGER NOT NULL) STRICT;
CREATE TABLE types (type TEXT PRIMARY KEY, state TEXT NOT NULL, layout_hash TEXT NOT NULL, import TEXT,
    untracked_since INTEGER, breaker_since INTEGER) STRICT;
CREATE TABLE dead (serial INTEGER PRIMARY KEY, kind TEXT NOT NULL, type TEXT NOT NULL, id INTEGER NOT NULL,
    payload TEXT NOT NULL, error TEXT NOT NULL, attempts INTEGER NOT NULL, first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL, next_due INTEGER NOT NULL, UNIQUE (kind, type, id)) STRICT;
CREATE INDEX dead_by_key ON dead (type, id);
CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE runs (run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, status TEXT NOT NULL, started_at INTEGER NOT NULL,
    finished_at INTEGER, report TEXT NOT NULL) STRICT;
CREATE INDEX runs_by_pipeline ON runs (pipeline, started_at);
CREATE INDEX runs_by_start ON runs (started_at);
";

const SUSPECTED_ABSENCES: &str = "
CREATE TABLE suspected (type TEXT NOT NULL, id INTEGER NOT NULL, reads INTEGER NOT NULL, poll INTEGER NOT NULL,
    first_at INTEGER NOT NULL, confirmed INTEGER NOT NULL, PRIMARY KEY (type, id)) STRICT, WITHOUT ROWID;
";

/// What was before what is decided by numbers of polls, not by moments.
const POLL_NUMBERS: &str = "
ALTER TABLE stream ADD COLUMN complete_poll INTEGER NOT NULL DEFAULT 0;
UPDATE stream SET complete_poll = poll_done;
ALTER TABLE marks ADD COLUMN since_poll INTEGER NOT NULL DEFAULT 0;
UPDATE marks SET expected = NULL;
ALTER TABLE touched ADD COLUMN since_poll INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sweeps ADD COLUMN since_poll INTEGER NOT NULL DEFAULT 0;
ALTER TABLE gaps ADD COLUMN asked_poll INTEGER NOT NULL DEFAULT 0;
CREATE TABLE consequences (cause_type TEXT NOT NULL, cause_id INTEGER NOT NULL, type TEXT NOT NULL,
    PRIMARY KEY (cause_type, cause_id, type)) STRICT, WITHOUT ROWID;
";

/// Until this format the table was made by its only user, so it may be there already.
const OUTBOX: &str = "
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, id TEXT NOT NULL,
    at INTEGER NOT NULL, document TEXT NOT NULL, refused TEXT, UNIQUE (stream, id)) STRICT;
ALTER TABLE outbox ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;
UPDATE outbox SET rank = CASE stream WHEN 'runs' THEN 2 WHEN 'validation' THEN 1 ELSE 0 END;
";

/// How often a change of the schema was noticed: a reader of the schema knows from it
/// whether there was another one since.
const SCHEMA_CHANGES: &str = "ALTER TABLE stream ADD COLUMN schema_changes INTEGER NOT NULL DEFAULT 0;";

/// A comparison answers the requests that were due when it began, so each is kept.
const SWEEPS: &str = "
ALTER TABLE sweeps RENAME TO sweeps_by_type;
CREATE TABLE sweeps (type TEXT NOT NULL, gen INTEGER NOT NULL, since INTEGER NOT NULL, due_at INTEGER NOT NULL,
    since_poll INTEGER NOT NULL) STRICT;
INSERT INTO sweeps (type, gen, since, due_at, since_poll) SELECT type, gen, since, due_at, since_poll
    FROM sweeps_by_type;
DROP TABLE sweeps_by_type;
";

/// A late entry below the high-water mark is of a moment that the one there does not tell.
const LATE_ENTRY: &str = "ALTER TABLE stream ADD COLUMN late_entry TEXT;";

/// Refuses a file of a newer format before anything is written to it, even the
/// journal mode.
pub(super) fn refuse_newer(path: &Path) -> Result<()> {
    let open = |source| StateError::Open { path: path.to_owned(), source };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(open)?;
    connection.busy_timeout(Duration::from_secs(20)).map_err(open)?;
    let known = FORMATS.len() as i64;
    match version(&connection)? {
        found if found > known => Err(StateError::Newer { path: path.to_owned(), found, known }),
        _ => Ok(()),
    }
}

/// Brings a file to the newest format.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let known = FORMATS.len() as i64;
    let found = version(connection)?;
    if found > known {
        return Err(StateError::Newer { path: path.to_owned(), found, known });
    }
    if found == known {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster; the lock is ours now.
    let found = version(&transaction)?;
    for statements in FORMATS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(statements)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

fn version(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

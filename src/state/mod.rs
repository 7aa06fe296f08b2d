//! What sync must remember, in one SQLite file.

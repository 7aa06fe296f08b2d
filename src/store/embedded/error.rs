//! What SQLite says, as [`StoreError`].

use rusqlite::ErrorCode;

use super::super::{StoreError, StoreErrorKind};

/// Returns a conversion that says what was tried: `cannot {action} the store`.
pub(super) fn wrap(action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| convert(action, error)
}

fn convert(action: &str, error: rusqlite::Error) -> StoreError {
    let kind = kind_of(&error);
    let reason = match kind {
        StoreErrorKind::Full => "there is no room left; make room on its disk, nothing stored is lost",
        StoreErrorKind::Locked => "another process is writing to it; stop it, or try again",
        StoreErrorKind::Refused => "its files cannot be written or opened",
        StoreErrorKind::Corrupt => "its file is damaged or no database",
        _ => "SQLite failed",
    };
    StoreError::new(kind, format!("cannot {action} the store: {reason} ({error})")).because(error)
}

fn kind_of(error: &rusqlite::Error) -> StoreErrorKind {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    // A value that this code would never write.
    if let FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..) = error {
        return StoreErrorKind::Corrupt;
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreErrorKind::Locked,
        Some(ErrorCode::DiskFull) => StoreErrorKind::Full,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => StoreErrorKind::Refused,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Fault,
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        convert("use", error)
    }
}

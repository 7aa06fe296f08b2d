//! The versions of documents: the version of the read, and room for rewrites.
//!
//! A row is written with an external version that grows with its read version.
//! The server compares either versions or sequence numbers, never both, and a
//! rewrite of links must not make a row newer than it is. So below every read
//! version there are [`MOST_REWRITES`] more: a rewriter writes the version after
//! the one it has seen, and loses to a writer that did the same before, or wrote a newer
//! row. The epoch stays where it is; the number within it gives up its upper bits,
//! of which 34 are left: 17,000,000,000 reads from one start to the next.

use super::super::{ReadVersion, Result, StoreError, StoreErrorKind};
use crate::elastic::VersionType;

const REWRITE_BITS: u32 = 6;

/// How many rewrites of one row are distinguished before it is read again.
const MOST_REWRITES: i64 = (1 << REWRITE_BITS) - 1;

/// Returns the version of the document of a row.
///
/// # Errors
///
/// When the numbers of an epoch are used up.
pub(super) fn of_read(rv: ReadVersion) -> Result<i64> {
    let sequence = rv.sequence() << REWRITE_BITS;
    if sequence >> 40 != 0 {
        let message = format!("the read versions of epoch {} are used up: restart the process that syncs", rv.epoch());
        return Err(StoreError::new(StoreErrorKind::Fault, message));
    }
    Ok(ReadVersion::new(rv.epoch(), sequence).0)
}

/// Returns how to write a rewritten document over one of this version.
///
/// After [`MOST_REWRITES`] the last writer wins, until the row is read again.
pub(super) fn after(seen: i64) -> (i64, VersionType) {
    if seen & MOST_REWRITES == MOST_REWRITES {
        (seen, VersionType::ExternalGte)
    } else {
        (seen + 1, VersionType::External)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_lie_between_two_reads() {
        let read = of_read(ReadVersion::new(3, 7)).expect("a version");
        let next = of_read(ReadVersion::new(3, 8)).expect("a version");
        let later = of_read(ReadVersion::new(4, 0)).expect("a version");
        assert!(read < next && next < later);
        let mut version = read;
        for _ in 0..1000 {
            let (rewritten, _) = after(version);
            assert!(rewritten >= version && rewritten < next);
            version = rewritten;
        }
        assert_eq!(after(read), (read + 1, VersionType::External));
        assert_eq!(after(version), (version, VersionType::ExternalGte));
    }

    #[test]
    fn an_epoch_that_is_used_up_is_told_and_nothing_overflows() {
        assert!(of_read(ReadVersion::new(1, (1 << 34) - 1)).is_ok());
        assert!(of_read(ReadVersion::new(1, 1 << 34)).is_err());
        assert!(of_read(ReadVersion::new((1 << 23) - 1, 1)).expect("a version") > 0);
    }
}

//! Requests that were heard before: whoever sends the same bytes again asks the same.
//!
//! Programs on a farm repeat themselves, and reading a request takes longer than
//! answering it. What is kept is what a request asks ([`Planned`]) and who asks it, by
//! a keyed hash of its bytes, credentials included; the credentials themselves are
//! not kept. It holds as long as what it was read by: the schema, the cached types,
//! and the largest page. Whether the cache may answer is not kept: that each moment
//! decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::callers::{Caller, Digest};
use super::catalogue::Catalogue;
use super::decide::{Asked, Planned};
use crate::schema::Schema;
use crate::store;

/// More requests than this are not remembered; with the longest of them it takes some
/// tens of MB.
const MOST: usize = 2_048;
/// Longer requests are not remembered.
pub(super) const LONGEST: usize = 4 << 10;

/// A request that was read.
pub(super) struct Heard {
    /// Without credentials.
    pub asked: Arc<Asked>,
    pub caller: Arc<Caller>,
    planned: Planned,
    basis: Basis,
}

/// What the meaning of a request depends on.
struct Basis {
    schema: Arc<Schema>,
    stored: Arc<store::Catalogue>,
    max_page: u32,
}

impl Heard {
    /// Returns what the request asks, if it still means the same.
    pub fn planned(&self, catalogue: &Catalogue) -> Option<Planned> {
        let Basis { schema, stored, max_page } = &self.basis;
        let same = Arc::ptr_eq(schema, &catalogue.schema)
            && Arc::ptr_eq(stored, &catalogue.stored)
            && *max_page == catalogue.max_page;
        same.then(|| self.planned.clone())
    }
}

/// The requests that were heard.
#[derive(Default)]
pub(super) struct Requests(Mutex<HashMap<Digest, Arc<Heard>>>);

impl Requests {
    /// Returns what these bytes were read as.
    pub fn heard(&self, digest: &Digest) -> Option<Arc<Heard>> {
        self.lock().get(digest).cloned()
    }

    /// Remembers what a request asks; one about this very moment asks something else
    /// each time.
    pub fn keep(&self, digest: Digest, asked: &Asked, caller: &Arc<Caller>, planned: &Planned, by: &Catalogue) {
        match planned {
            Planned::Read(question, _) | Planned::Summarize(question, _) if !question.of_now => {}
            _ => return,
        }
        let basis = Basis { schema: Arc::clone(&by.schema), stored: Arc::clone(&by.stored), max_page: by.max_page };
        let mut asked = asked.clone();
        asked.request.auth = None;
        let heard = Heard { asked: Arc::new(asked), caller: Arc::clone(caller), planned: planned.clone(), basis };
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(digest, Arc::new(heard));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Heard>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The bytes of uploads, the state of pictures, and uploads that are not linked
//! yet.
//!
//! A new picture is a placeholder until the site has made it: its entity shows the
//! placeholder's address meanwhile, and a second entry of the event log says when
//! the picture is there. The bytes are served as they came; nothing is scaled.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::cell::Key;
use super::event::Actor;
use super::schema::FieldId;
use shotgun_model::entity::Timestamp;

/// One file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name.
    pub name: String,
    /// What it is, as the uploader said.
    pub content_type: String,
    /// What it holds.
    pub bytes: Arc<[u8]>,
}

/// A picture that is not made yet.
#[derive(Clone, Debug)]
pub struct Pending {
    /// When it will be there.
    pub ready_at: Timestamp,
    /// The entity and the field that show it.
    pub shown: (Key, FieldId),
    /// Who uploaded it.
    pub actor: Actor,
}

/// A file on its way through the storage, in parts.
#[derive(Clone, Debug, Default)]
pub struct Transfer {
    /// The name of the file.
    pub name: String,
    /// What it is, as the uploader said.
    pub content_type: String,
    /// Its parts by number.
    pub parts: BTreeMap<u32, Arc<[u8]>>,
    /// The tags of the parts, as they were given out.
    pub tags: BTreeMap<u32, String>,
}

/// Every file of the site.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Files by the id of their attachment.
    pub stored: HashMap<i64, File>,
    /// Pictures by the id of their attachment.
    pub pending: BTreeMap<i64, Pending>,
    /// Transfers by their token.
    pub transfers: HashMap<String, Transfer>,
}

impl Files {
    /// Tells whether a picture is still a placeholder.
    pub fn is_pending(&self, attachment: i64) -> bool {
        self.pending.contains_key(&attachment)
    }

    /// Returns the pictures that are made by now.
    pub fn due(&self, now: Timestamp) -> Vec<i64> {
        self.pending.iter().filter(|(_, pending)| pending.ready_at <= now).map(|(id, _)| *id).collect()
    }
}

impl Transfer {
    /// Returns the whole file.
    pub fn bytes(&self) -> Arc<[u8]> {
        self.parts.values().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>().into()
    }
}

//! What the site keeps beside its rows: who follows what, working days, access
//! times, columns that were made by hand, files.
//!
//! It is part of the [`World`](super::world::World), so a copy of the world is a
//! copy of this too. Nothing here takes part in a roll-back: each method checks
//! everything before it changes anything.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cell::Key;
use super::files::Files;
use shotgun_model::entity::{Day, EntityType, Timestamp};

/// What no row of the site shows.
#[derive(Clone, Debug, Default)]
pub struct AuxiliaryState {
    /// Who follows which entity.
    pub follows: BTreeSet<(Key, Key)>,
    /// When a person was last in a project: project, person.
    pub accesses: BTreeMap<(Key, Key), Timestamp>,
    /// The days that are not as the studio's week says.
    pub days: BTreeMap<(Day, Whose), WorkDay>,
    /// What the schema does not say about a field.
    pub columns: BTreeMap<(EntityType, String), Column>,
    /// The subscriptions of people, by id.
    pub subscriptions: BTreeMap<i64, Value>,
    /// The ids of event log entries in the order in which they were committed:
    /// the activity stream counts by it.
    pub committed: Vec<u32>,
    /// Uploaded files and pictures.
    pub files: Files,
}

/// Whom a working day is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Whose {
    /// Everybody.
    Studio,
    /// Those who work on a project.
    Project(Key),
    /// One person.
    User(Key),
}

/// A day that is an exception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkDay {
    /// Whether it is worked on that day.
    pub working: bool,
    /// Why.
    pub description: Option<String>,
}

/// A field as the people who administer the site know it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Column {
    /// Its row among the columns.
    pub row: Option<Key>,
    /// Whether a user made it; a stock field cannot be hidden.
    pub custom: bool,
    /// Whether it was deleted; its name stays taken.
    pub retired: bool,
    /// Text that programs keep with it.
    pub custom_metadata: String,
    /// Whether projects show it, by id; those that are not named do.
    pub visible: BTreeMap<i64, bool>,
}

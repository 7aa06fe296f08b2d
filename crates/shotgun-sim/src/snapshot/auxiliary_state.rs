//! What the site keeps beside its rows, as a line of the file. Uploads that are
//! still on their way are left out: they cannot be ended on another site.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Numbers;
use crate::auxiliary_state::{AuxiliaryState, Column, Whose, WorkDay};
use crate::cell::Key;
use crate::event::Actor;
use crate::files::{File, Files, Pending};
use crate::schema::FieldId;
use shotgun_model::entity::{Day, EntityType, Timestamp};

/// The line: one object, where those of rows are arrays.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuxiliaryLine {
    follows: Vec<(Key, Key)>,
    accesses: Vec<(Key, Key, Timestamp)>,
    days: Vec<(Day, Whose, WorkDay)>,
    columns: Vec<(EntityType, String, Column)>,
    subscriptions: BTreeMap<i64, Value>,
    committed: Vec<u32>,
    files: Vec<FileLine>,
    pending: Vec<PendingLine>,
}

#[derive(Serialize, Deserialize)]
struct FileLine {
    attachment: i64,
    name: String,
    content_type: String,
    base64: String,
}

#[derive(Serialize, Deserialize)]
struct PendingLine {
    attachment: i64,
    ready_at: Timestamp,
    shown: (Key, FieldId),
    user: Key,
    sudo: Option<Key>,
    logs: bool,
    session: Option<String>,
}

impl AuxiliaryLine {
    /// Writes down what a site keeps.
    pub fn of(kept: &AuxiliaryState) -> Self {
        let mut files: Vec<_> = kept.files.stored.iter().collect();
        files.sort_unstable_by_key(|(attachment, _)| **attachment);
        let file = |(attachment, file): (&i64, &File)| FileLine {
            attachment: *attachment,
            name: file.name.clone(),
            content_type: file.content_type.clone(),
            base64: BASE64_STANDARD.encode(&file.bytes),
        };
        let pending = |(attachment, pending): (&i64, &Pending)| PendingLine {
            attachment: *attachment,
            ready_at: pending.ready_at,
            shown: pending.shown,
            user: pending.actor.user,
            sudo: pending.actor.sudo,
            logs: pending.actor.logs,
            session: pending.actor.session.clone(),
        };
        Self {
            follows: kept.follows.iter().copied().collect(),
            accesses: kept.accesses.iter().map(|((project, user), at)| (*project, *user, *at)).collect(),
            days: kept.days.iter().map(|((day, whose), rule)| (*day, *whose, rule.clone())).collect(),
            columns: kept
                .columns
                .iter()
                .map(|((ty, name), column)| (ty.clone(), name.clone(), column.clone()))
                .collect(),
            subscriptions: kept.subscriptions.clone(),
            committed: kept.committed.clone(),
            files: files.into_iter().map(file).collect(),
            pending: kept.files.pending.iter().map(pending).collect(),
        }
    }

    /// Returns what was written down, in the numbers of this program.
    ///
    /// # Errors
    ///
    /// What is wrong: a type or field that the head does not name, or broken bytes.
    pub fn read(self, numbers: &Numbers) -> Result<AuxiliaryState, String> {
        let unknown = || "a type or field that the head does not name".to_owned();
        let key = |key: Key| numbers.key(key).ok_or_else(unknown);
        let mut kept = AuxiliaryState {
            subscriptions: self.subscriptions,
            committed: self.committed,
            ..AuxiliaryState::default()
        };
        for (user, entity) in self.follows {
            kept.follows.insert((key(user)?, key(entity)?));
        }
        for (project, user, at) in self.accesses {
            kept.accesses.insert((key(project)?, key(user)?), at);
        }
        for (day, whose, rule) in self.days {
            let whose = match whose {
                Whose::Studio => whose,
                Whose::Project(project) => Whose::Project(key(project)?),
                Whose::User(user) => Whose::User(key(user)?),
            };
            kept.days.insert((day, whose), rule);
        }
        for (ty, name, column) in self.columns {
            let row = column.row.map(key).transpose()?;
            kept.columns.insert((ty, name), Column { row, ..column });
        }
        let mut files = Files::default();
        for FileLine { attachment, name, content_type, base64 } in self.files {
            let bytes = BASE64_STANDARD.decode(base64).map_err(|error| format!("{name}: {error}"))?.into();
            files.stored.insert(attachment, File { name, content_type, bytes });
        }
        for line in self.pending {
            let field = numbers.field(line.shown.0.ty, line.shown.1).ok_or_else(unknown)?;
            let actor = Actor {
                user: key(line.user)?,
                sudo: line.sudo.map(key).transpose()?,
                logs: line.logs,
                session: line.session,
            };
            let pending = Pending { ready_at: line.ready_at, shown: (key(line.shown.0)?, field), actor };
            files.pending.insert(line.attachment, pending);
        }
        Ok(AuxiliaryState { files, ..kept })
    }
}

//! People at work: a stream of edits to a site, the same for the same seed and
//! the same site.
//!
//! Now and then a write takes long: its transaction stays open while others are
//! made, and is then committed late or rolled back, as on a real site.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::cell::Key;
use super::event::Actor;
use super::generate::{FIRST_NAMES, LAST_NAMES, sentence};
use super::site::Site;
use super::transaction::Transaction;
use shotgun_model::api3::Fault;

/// The people at work.
pub struct Edits {
    site: Arc<Site>,
    rng: StdRng,
    step: u64,
    /// Transactions that stay open until a later step, and whether they then
    /// commit.
    open: Vec<(u64, Transaction, bool)>,
}

impl Edits {
    /// Makes the stream of a seed.
    pub fn new(site: Arc<Site>, seed: u64) -> Self {
        Self { site, rng: StdRng::seed_from_u64(seed ^ 0xed17), step: 0, open: Vec::new() }
    }

    /// Makes one edit, and ends the transactions whose time has come.
    pub fn step(&mut self) {
        self.step += 1;
        let due = self.open.iter().position(|(step, ..)| *step <= self.step);
        if let Some((_, transaction, commit)) = due.map(|at| self.open.remove(at)) {
            if commit {
                // Another request may have retired what it wanted to change: then it is
                // as if it had been rolled back.
                let _ = transaction.commit();
            } else {
                transaction.roll_back();
            }
        }
        // An edit of a row that the site does not let be edited did not happen.
        let _ = self.edit();
    }

    fn edit(&mut self) -> Result<(), Fault> {
        let Some(who) = self.person() else { return Ok(()) };
        match self.rng.random_range(0..100) {
            0..30 => self.set(who, "Task", "sg_status_list", &["wtg", "rdy", "ip", "rev", "fin", "hld"]),
            30..40 => self.set(who, "Shot", "sg_status_list", &["wtg", "rdy", "ip", "fin", "hld"]),
            40..48 => self.set(who, "Version", "sg_status_list", &["rev", "vwd", "apr", "na"]),
            48..56 => self.publish(who),
            56..62 => self.describe(who),
            62..66 => self.rename(who),
            66..72 => self.assign(who),
            72..77 => self.use_assets(who),
            77..79 => self.move_shot(who),
            79..85 => self.comment(who),
            85..88 => self.reply(who),
            88..90 => self.new_shot(who),
            90..93 => self.retire(who),
            93..95 => self.revive(who),
            _ => self.take_long(who),
        }
    }

    fn person(&mut self) -> Option<Actor> {
        let id = self.any("HumanUser")?;
        self.site.person(id)
    }

    /// Returns the id of an active row.
    fn any(&mut self, entity_type: &str) -> Option<i64> {
        self.any_that(entity_type, |world, key| world.is_active(key))
    }

    fn any_that(&mut self, entity_type: &str, fits: impl Fn(&super::world::World, Key) -> bool) -> Option<i64> {
        let world = self.site.rows();
        let ty = world.layout.type_id(entity_type)?;
        let next = world.table(ty).next;
        if next < 2 {
            return None;
        }
        let tries = (0..40).map(|_| Key { ty, id: self.rng.random_range(1..next) });
        tries.into_iter().find(|key| fits(&world, *key)).map(|key| i64::from(key.id))
    }

    /// Returns the project of a row, as a value to write.
    fn project_of(&self, entity_type: &str, id: i64) -> Value {
        let world = self.site.rows();
        let key = world.key(&shotgun_model::entity::EntityRef::new(entity_type, id));
        let project = key.and_then(|key| world.project(key));
        project.map_or(Value::Null, |project| to("Project", i64::from(project.id)))
    }

    fn set(&mut self, who: Actor, entity_type: &str, field: &str, values: &[&str]) -> Result<(), Fault> {
        let Some(id) = self.any(entity_type) else { return Ok(()) };
        let value = values[self.rng.random_range(0..values.len())];
        self.site.update_as(who, entity_type, id, json!({field: value}))
    }

    fn describe(&mut self, who: Actor) -> Result<(), Fault> {
        let entity_type = if self.rng.random_bool(0.7) { "Shot" } else { "Asset" };
        let Some(id) = self.any(entity_type) else { return Ok(()) };
        let words = if self.rng.random_bool(0.1) { String::new() } else { sentence(&mut self.rng, 6) };
        self.site.update_as(who, entity_type, id, json!({"description": words}))
    }

    fn rename(&mut self, who: Actor) -> Result<(), Fault> {
        if self.rng.random_bool(0.2) {
            let Some(id) = self.any("HumanUser") else { return Ok(()) };
            let name = format!("{} {}", self.word(&FIRST_NAMES), self.word(&LAST_NAMES));
            return self.site.update_as(who, "HumanUser", id, json!({"name": name}));
        }
        let Some(id) = self.any("Asset") else { return Ok(()) };
        let code = format!("{}_{:04}", self.word(&FIRST_NAMES).to_lowercase(), self.rng.random_range(0..10_000));
        self.site.update_as(who, "Asset", id, json!({"code": code}))
    }

    fn word(&mut self, words: &[&'static str]) -> &'static str {
        words[self.rng.random_range(0..words.len())]
    }

    fn assign(&mut self, who: Actor) -> Result<(), Fault> {
        let Some(id) = self.any("Task") else { return Ok(()) };
        let count = self.rng.random_range(0..3);
        let people: Vec<_> = (0..count).filter_map(|_| self.any("HumanUser")).map(|id| to("HumanUser", id)).collect();
        self.site.update_as(who, "Task", id, json!({"task_assignees": people}))
    }

    fn use_assets(&mut self, who: Actor) -> Result<(), Fault> {
        let Some(id) = self.any("Shot") else { return Ok(()) };
        let count = self.rng.random_range(0..4);
        let assets: Vec<_> = (0..count).filter_map(|_| self.any("Asset")).map(|id| to("Asset", id)).collect();
        self.site.update_as(who, "Shot", id, json!({"assets": assets}))
    }

    fn move_shot(&mut self, who: Actor) -> Result<(), Fault> {
        let (Some(id), Some(sequence)) = (self.any("Shot"), self.any("Sequence")) else { return Ok(()) };
        if self.rng.random_bool(0.5) {
            return self.site.update_as(who, "Shot", id, json!({"sg_sequence": to("Sequence", sequence)}));
        }
        let argument = json!({"type": "Sequence", "id": sequence, "fields": [
            {"field_name": "shots", "value": [to("Shot", id)], "multi_entity_update_mode": "add"}]});
        let request = shotgun_model::api3::Update::from_wire(&argument)?;
        self.site.write(who, |writer| writer.update(&request)).map(|_| ())
    }

    fn publish(&mut self, who: Actor) -> Result<(), Fault> {
        let Some(task) = self.any_that("Task", |world, key| world.is_active(key) && world.project(key).is_some())
        else {
            return Ok(());
        };
        let project = self.project_of("Task", task);
        let entity = self.site.read("Task", &json!([["id", "is", task]]), &["entity"])?;
        let entity = entity.first().map_or(Value::Null, |row| row["entity"].clone());
        let code = format!("pub_{:06}_v001", self.rng.random_range(0..1_000_000));
        let frames = self.rng.random_range(24..240);
        let version = json!({"code": code, "project": project, "entity": entity, "sg_task": to("Task", task),
            "frame_count": frames, "description": sentence(&mut self.rng, 5)});
        let version = self.site.create_as(who.clone(), "Version", version)?;
        let file = json!({"code": format!("{code}.ma"), "project": project, "entity": entity,
            "task": to("Task", task), "version": to("Version", version), "version_number": 1});
        self.site.create_as(who, "PublishedFile", file).map(|_| ())
    }

    fn comment(&mut self, who: Actor) -> Result<(), Fault> {
        let Some(shot) = self.any("Shot") else { return Ok(()) };
        let note = json!({"subject": "Note", "content": sentence(&mut self.rng, 10),
            "project": self.project_of("Shot", shot), "note_links": [to("Shot", shot)]});
        self.site.create_as(who, "Note", note).map(|_| ())
    }

    fn reply(&mut self, who: Actor) -> Result<(), Fault> {
        let Some(note) = self.any("Note") else { return Ok(()) };
        let reply = json!({"content": sentence(&mut self.rng, 6), "entity": to("Note", note)});
        self.site.create_as(who, "Reply", reply).map(|_| ())
    }

    fn new_shot(&mut self, who: Actor) -> Result<(), Fault> {
        let Some(sequence) = self.any("Sequence") else { return Ok(()) };
        let code = format!("new_{:05}", self.rng.random_range(0..100_000));
        let mut fields = json!({"code": code, "project": self.project_of("Sequence", sequence),
            "sg_sequence": to("Sequence", sequence)});
        if let Some(template) = self.any("TaskTemplate") {
            fields["task_template"] = to("TaskTemplate", template);
        }
        self.site.create_as(who, "Shot", fields).map(|_| ())
    }

    fn retire(&mut self, who: Actor) -> Result<(), Fault> {
        let entity_type = ["Version", "Version", "PublishedFile", "Note", "Task", "Shot"][self.rng.random_range(0..6)];
        let Some(id) = self.any(entity_type) else { return Ok(()) };
        self.site.write(who, |writer| writer.delete(&entity_type.into(), id)).map(|_| ())
    }

    fn revive(&mut self, who: Actor) -> Result<(), Fault> {
        let entity_type = ["Version", "Task", "Shot"][self.rng.random_range(0..3)];
        let Some(id) = self.any_that(entity_type, |world, key| world.row(key).is_some_and(|row| row.retired)) else {
            return Ok(());
        };
        self.site.write(who, |writer| writer.revive(&entity_type.into(), id)).map(|_| ())
    }

    fn take_long(&mut self, who: Actor) -> Result<(), Fault> {
        let (Some(shot), Some(task)) = (self.any("Shot"), self.any("Task")) else { return Ok(()) };
        let mut transaction = self.site.begin(who);
        transaction.update("Shot", shot, json!({"description": sentence(&mut self.rng, 4)}))?;
        transaction.update("Task", task, json!({"sg_status_list": "rev"}))?;
        let until = self.step + self.rng.random_range(1..30);
        let commit = self.rng.random_bool(0.8);
        self.open.push((until, transaction, commit));
        Ok(())
    }
}

fn to(entity_type: &str, id: i64) -> Value {
    json!({"type": entity_type, "id": id})
}

#[cfg(test)]
mod tests {
    use super::*;
    use shotgun_model::entity::Timestamp;

    fn edited(seed: u64) -> Arc<Site> {
        let site = Site::generated(seed, 2_000);
        site.clock.set(Timestamp::parse("2026-02-01T00:00:00Z").expect("a moment"));
        let mut edits = Edits::new(Arc::clone(&site), seed);
        (0..300).for_each(|_| edits.step());
        site
    }

    #[test]
    fn the_same_seed_is_the_same_history() {
        let log = |site: &Site| {
            let fields = ["event_type", "attribute_name", "meta", "user", "created_at"];
            site.read("EventLogEntry", &json!([]), &fields).expect("the event log")
        };
        let (a, b) = (log(&edited(9)), log(&edited(9)));
        assert!(a.len() > 1_000, "{}", a.len());
        assert!(a == b, "the histories differ");
    }

    #[test]
    fn people_do_everything_that_a_follower_must_bear() {
        let site = edited(11);
        let rows = site.read("EventLogEntry", &json!([]), &["event_type"]).expect("the event log");
        for kind in ["Task_Change", "Version_New", "_Retirement", "_Revival", "Note_New", "AssetShotConnection_New"] {
            let seen = rows.iter().any(|row| row["event_type"].as_str().is_some_and(|text| text.contains(kind)));
            assert!(seen, "no {kind}");
        }
        let ids: Vec<i64> = rows.iter().filter_map(|row| row["id"].as_i64()).collect();
        assert!(ids.windows(2).any(|pair| pair[1] > pair[0] + 1), "some ids are missing");
    }
}

//! How this site behaves where no source settles how a real one does.
//!
//! Each reading has two values; the first is what a site does that is not set
//! otherwise. The names and values are those of `--reading NAME=VALUE`.

use std::fmt;

use shotgun_model::entity::{FieldValue, Timestamp};
use shotgun_model::filter::{self, Filter, Leaf, Test, Unit, Window};

/// A rule with two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// What a path through a retired entity leads to.
    PathThroughRetired,
    /// Whether `is_not null` through a list holds for an empty one.
    NotNullThroughList,
    /// Whether a checkbox behind an empty link is false.
    FalseBehindEmptyLink,
    /// Whether a checkbox behind an empty link is not true.
    NotTrueBehindEmptyLink,
    /// Whether `in_last 2 DAY` begins at midnight or 48 hours ago.
    RecentDays,
    /// Whether work takes its Tasks along when it is retired.
    TasksOfRetired,
    /// Whether rows that are retired along with another one log that.
    ChildrenLog,
    /// Whether connection rows are retired with one of their ends.
    ConnectionsOfRetired,
    /// Which of its two links a PublishedFileDependency has on the downstream file.
    FileDependency,
    /// Whether a retired entity can be changed.
    UpdateOfRetired,
    /// What a list that is set does with its links to retired entities.
    SetAndRetiredLinks,
    /// What a null means to a checkbox.
    NullCheckbox,
    /// Where the entry `New` stands among those of a creation.
    NewEntry,
    /// Whether the other side of a link that changes gets a new `updated_at`.
    OtherSideUpdatedAt,
}

/// Every reading: its name, its two values, the row of the reference that is open.
pub const READINGS: [(Reading, &str, [&str; 2], &str); 14] = [
    (Reading::PathThroughRetired, "path_through_retired", ["empty", "no_match"], "37"),
    (Reading::NotNullThroughList, "not_null_through_list", ["negates_all", "has_value"], "38"),
    (Reading::FalseBehindEmptyLink, "false_behind_empty_link", ["no", "yes"], "39"),
    (Reading::NotTrueBehindEmptyLink, "not_true_behind_empty_link", ["yes", "no"], "39"),
    (Reading::RecentDays, "recent_days", ["whole", "exact"], "40"),
    (Reading::TasksOfRetired, "tasks_of_retired", ["retire", "stay"], "17, 44"),
    (Reading::ChildrenLog, "children_log", ["yes", "no"], "44"),
    (Reading::ConnectionsOfRetired, "connections_of_retired", ["stay", "retire"], "45"),
    (Reading::FileDependency, "file_dependency", ["forward", "reverse"], "45"),
    (Reading::UpdateOfRetired, "update_of_retired", ["refuse", "accept"], "46"),
    (Reading::SetAndRetiredLinks, "set_and_retired_links", ["drop", "keep"], "46"),
    (Reading::NullCheckbox, "null_checkbox", ["false", "refuse"], "46"),
    (Reading::NewEntry, "new_entry", ["last", "first"], "10"),
    (Reading::OtherSideUpdatedAt, "other_side_updated_at", ["keep", "set"], "25"),
];

/// A name or value that no reading has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadingError {
    /// There is no such reading.
    #[error("unknown reading `{0}`: expected one of {names}", names = Names)]
    Name(String),
    /// The reading has other values.
    #[error("reading `{name}` is `{}` or `{}`, not `{value}`", values[0], values[1])]
    Value {
        /// The reading.
        name: &'static str,
        /// Its values.
        values: [&'static str; 2],
        /// What was given.
        value: String,
    },
}

struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = READINGS.iter().map(|(_, name, ..)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

/// The readings of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// One bit for each reading that has its second value.
    second: u16,
}

impl Readings {
    /// Gives a reading one of its values.
    ///
    /// # Errors
    ///
    /// [`ReadingError`] with what would be right.
    pub fn set(&mut self, name: &str, value: &str) -> Result<Reading, ReadingError> {
        let (reading, name, values, _) = *READINGS
            .iter()
            .find(|(_, known, ..)| *known == name)
            .ok_or_else(|| ReadingError::Name(name.to_owned()))?;
        let second = values.iter().position(|known| *known == value);
        let second = second.ok_or_else(|| ReadingError::Value { name, values, value: value.to_owned() })?;
        let bit = 1 << reading as u16;
        self.second = if second == 1 { self.second | bit } else { self.second & !bit };
        Ok(reading)
    }

    /// Tells whether a reading has its second value.
    pub fn second(self, reading: Reading) -> bool {
        self.second & (1 << reading as u16) != 0
    }

    /// Returns the readings that filters depend on.
    pub fn of_filters(self) -> filter::Readings {
        filter::Readings {
            no_match_through_retired: self.second(Reading::PathThroughRetired),
            not_null_needs_value: self.second(Reading::NotNullThroughList),
            false_behind_empty_link: self.second(Reading::FalseBehindEmptyLink),
            not_true_needs_link: self.second(Reading::NotTrueBehindEmptyLink),
        }
    }

    /// Returns the filter with windows around now in absolute time.
    pub fn absolute(self, filter: &Filter, now: Timestamp) -> Filter {
        if !self.second(Reading::RecentDays) {
            return filter.at(now);
        }
        match filter {
            Filter::All(conditions) => Filter::All(conditions.iter().map(|c| self.absolute(c, now)).collect()),
            Filter::Any(conditions) => Filter::Any(conditions.iter().map(|c| self.absolute(c, now)).collect()),
            Filter::Leaf(leaf) => exact(leaf, now).unwrap_or_else(|| filter.at(now)),
        }
    }
}

/// Counts days and weeks in hours from this moment; months and years have no
/// exact length and stay whole.
fn exact(leaf: &Leaf, now: Timestamp) -> Option<Filter> {
    let seconds = |count: u32, unit: Unit| match unit {
        Unit::Day => Some(i64::from(count) * 86_400),
        Unit::Week => Some(i64::from(count) * 7 * 86_400),
        Unit::Hour | Unit::Month | Unit::Year => None,
    };
    let (first, last) = match leaf.test {
        Test::Within(Window::Last(count, unit)) => (now.0 - seconds(count, unit)?, now.0),
        Test::Within(Window::Next(count, unit)) => (now.0, now.0 + seconds(count, unit)?),
        _ => return None,
    };
    if leaf.path.data_type == shotgun_model::entity::DataType::Date {
        return None;
    }
    let bound = |at| FieldValue::DateTime(Timestamp(at));
    let test = Test::Between(bound(first), bound(last));
    Some(Filter::Leaf(Leaf { path: leaf.path.clone(), negated: leaf.negated, test }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Site;
    use shotgun_model::entity::EventId;

    /// Runs the same story on a site that is told nothing and on one with the
    /// second value of a reading.
    #[track_caller]
    fn check(name: &str, story: impl Fn(&Site) -> Value, expected: [Value; 2]) {
        let (_, _, values, _) = READINGS.iter().find(|(_, known, ..)| *known == name).expect("a reading");
        let told = values.map(|value| {
            let site = Site::empty();
            site.clock.set(Timestamp(1_700_000_000));
            site.set_reading(name, value).expect("a value");
            site.create("Project", json!({"name": "Demo"})).expect("a project");
            story(&site)
        });
        assert_eq!(told, expected, "{name}");
    }

    fn made(site: &Site, ty: &str, mut fields: Value) -> i64 {
        fields["project"] = json!({"type": "Project", "id": 1});
        site.create(ty, fields).expect("an entity")
    }

    fn link(ty: &str, id: i64) -> Value {
        json!({"type": ty, "id": id})
    }

    fn ids(site: &Site, ty: &str, filter: Value) -> Value {
        site.read(ty, &filter, &[]).expect("rows").iter().map(|row| row["id"].clone()).collect()
    }

    #[test]
    fn filters_through_links_can_be_read_both_ways() {
        let through_retired = |site: &Site| {
            let shot = made(site, "Shot", json!({"code": "a"}));
            made(site, "Version", json!({"code": "v"}));
            let task = made(site, "Task", json!({"content": "t"}));
            site.update("Version", 1, json!({"sg_task": link("Task", task)})).expect("an update");
            site.retire("Task", task).expect("a retirement");
            json!([ids(site, "Version", json!([["sg_task.Task.content", "is", null]])), shot])
        };
        check("path_through_retired", through_retired, [json!([[1], 1]), json!([[], 1])]);

        let through_list = |site: &Site| {
            made(site, "Asset", json!({"code": "a", "description": "x"}));
            made(site, "Shot", json!({"code": "none"}));
            made(site, "Shot", json!({"code": "one", "assets": [link("Asset", 1)]}));
            ids(site, "Shot", json!([["assets.Asset.description", "is_not", null]]))
        };
        check("not_null_through_list", through_list, [json!([1, 2]), json!([2])]);

        let checkbox = |relation: &'static str, value: bool| {
            move |site: &Site| {
                site.create("Group", json!({"code": "no project"})).expect("a group");
                made(site, "Shot", json!({"code": "no sequence"}));
                ids(site, "Shot", json!([["sg_sequence.Sequence.project.Project.archived", relation, value]]))
            }
        };
        check("false_behind_empty_link", checkbox("is", false), [json!([]), json!([1])]);
        check("not_true_behind_empty_link", checkbox("is_not", true), [json!([1]), json!([])]);
    }

    #[test]
    fn recent_days_are_whole_or_exact() {
        let story = |site: &Site| {
            made(site, "Shot", json!({"code": "a"}));
            site.clock.advance(std::time::Duration::from_secs(90_000));
            ids(site, "Shot", json!([["created_at", "in_last", 1, "DAY"]]))
        };
        check("recent_days", story, [json!([1]), json!([])]);
    }

    #[test]
    fn a_retirement_takes_along_what_the_readings_say() {
        let family = |site: &Site| {
            let shot = made(site, "Shot", json!({"code": "a"}));
            made(site, "Task", json!({"content": "t", "entity": link("Shot", shot)}));
            made(site, "Version", json!({"code": "v", "entity": link("Shot", shot)}));
            shot
        };
        let tasks = |site: &Site| {
            let shot = family(site);
            site.retire("Shot", shot).expect("a retirement");
            json!([site.count("Task"), site.count("Version")])
        };
        check("tasks_of_retired", tasks, [json!([0, 0]), json!([1, 0])]);

        let logged = |site: &Site| {
            let shot = family(site);
            let EventId(before) = site.last_event_id();
            site.retire("Shot", shot).expect("a retirement");
            let about = json!([["id", "greater_than", before], ["event_type", "is", "Shotgun_Version_Retirement"]]);
            json!(site.read("EventLogEntry", &about, &[]).expect("entries").len())
        };
        check("children_log", logged, [json!(1), json!(0)]);

        let connected = |site: &Site| {
            let asset = made(site, "Asset", json!({"code": "a"}));
            made(site, "Shot", json!({"code": "s", "assets": [link("Asset", asset)]}));
            site.retire("Asset", asset).expect("a retirement");
            let retired = site.count("AssetShotConnection");
            site.revive("Asset", asset).expect("a revival");
            json!([retired, site.count("AssetShotConnection")])
        };
        check("connections_of_retired", connected, [json!([1, 1]), json!([0, 1])]);

        let dependency = |site: &Site| {
            let up = made(site, "PublishedFile", json!({"code": "up"}));
            made(
                site,
                "PublishedFile",
                json!({"code": "down", "upstream_published_files": [link("PublishedFile", up)]}),
            );
            let rows = site.read("PublishedFileDependency", &json!([]), &["published_file"]).expect("rows");
            rows[0]["published_file"]["name"].clone()
        };
        check("file_dependency", dependency, [json!("down"), json!("up")]);
    }

    #[test]
    fn writes_are_taken_or_refused_as_the_readings_say() {
        let retired = |site: &Site| {
            made(site, "Shot", json!({"code": "a"}));
            site.retire("Shot", 1).expect("a retirement");
            json!(site.update("Shot", 1, json!({"code": "b"})).is_ok())
        };
        check("update_of_retired", retired, [json!(false), json!(true)]);

        let list = |site: &Site| {
            made(site, "Asset", json!({"code": "gone"}));
            made(site, "Asset", json!({"code": "kept"}));
            let shot = made(site, "Shot", json!({"code": "s", "assets": [link("Asset", 1)]}));
            site.retire("Asset", 1).expect("a retirement");
            site.update("Shot", shot, json!({"assets": [link("Asset", 2)]})).expect("an update");
            site.revive("Asset", 1).expect("a revival");
            let shots = site.read("Shot", &json!([]), &["assets"]).expect("shots");
            json!(shots[0]["assets"].as_array().expect("a list").len())
        };
        check("set_and_retired_links", list, [json!(1), json!(2)]);

        let checkbox = |site: &Site| json!(site.update("Project", 1, json!({"archived": null})).is_ok());
        check("null_checkbox", checkbox, [json!(true), json!(false)]);
    }

    #[test]
    fn the_event_log_and_stamps_follow_the_readings() {
        let first = |site: &Site| {
            let EventId(before) = site.last_event_id();
            made(site, "Shot", json!({"code": "a"}));
            let entries = site.read("EventLogEntry", &json!([["id", "greater_than", before]]), &["event_type"]);
            let entries = entries.expect("entries");
            json!(entries.iter().position(|entry| entry["event_type"] == "Shotgun_Shot_New") == Some(0))
        };
        check("new_entry", first, [json!(false), json!(true)]);

        let stamp = |site: &Site| {
            made(site, "Asset", json!({"code": "a"}));
            site.clock.advance(std::time::Duration::from_secs(60));
            made(site, "Shot", json!({"code": "s", "assets": [link("Asset", 1)]}));
            let assets = site.read("Asset", &json!([]), &["created_at", "updated_at"]).expect("assets");
            json!(assets[0]["created_at"] != assets[0]["updated_at"])
        };
        check("other_side_updated_at", stamp, [json!(false), json!(true)]);
    }

    #[test]
    fn a_wrong_name_or_value_says_what_would_be_right() {
        let site = Site::empty();
        let error = site.set_reading("null_checkbox", "maybe").expect_err("no such value").to_string();
        assert_eq!(error, "reading `null_checkbox` is `false` or `refuse`, not `maybe`");
        let error = site.set_reading("null", "false").expect_err("no such reading").to_string();
        assert!(error.starts_with("unknown reading `null`: expected one of path_through_retired, "), "{error}");
    }

    #[test]
    fn every_reading_is_in_the_docs() {
        let page = include_str!("../../../docs/SIM.md");
        for (_, name, [first, second], _) in READINGS {
            assert!(page.contains(&format!("| `{name}` | `{first}` | `{second}` |")), "{name}");
        }
    }
}

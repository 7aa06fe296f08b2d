//! Projects: few large ones, many small ones, each with its shots, assets, tasks,
//! versions, files and notes.

use chrono::Days;
use rand::Rng;
use serde_json::json;

use super::words::{ASSETS, PROJECTS};
use super::{Cells, END, SPAN, Studio};
use crate::cell::{Cell, Key};
use shotgun_model::entity::{Day, Timestamp};

const TASK_STATUS: [&str; 8] = ["wtg", "wtg", "rdy", "ip", "ip", "rev", "fin", "fin"];
const SHOT_STATUS: [&str; 6] = ["wtg", "rdy", "ip", "ip", "fin", "hld"];
const VERSION_STATUS: [&str; 5] = ["rev", "rev", "vwd", "apr", "na"];
const ASSET_TYPES: [&str; 6] = ["Character", "Environment", "Prop", "Vehicle", "FX", "Matte Painting"];

/// The rows that a shot or an asset brings along are at most this many.
const BUNDLE: usize = 80;

pub(super) fn fill(studio: &mut Studio<'_>) {
    let projects = (studio.entities / 6_000).clamp(4, 60);
    let weights: Vec<f64> = (1..=projects).map(|rank| 1.0 / rank as f64).collect();
    let sum: f64 = weights.iter().sum();
    let whole = studio.left as f64;
    for (number, weight) in weights.iter().enumerate() {
        let share = (whole * weight / sum) as usize;
        let floor = studio.left.saturating_sub(share);
        Production::start(studio, number, floor).fill();
    }
    top_up(studio);
}

/// Books time until the number of rows is the one that was asked for.
fn top_up(studio: &mut Studio<'_>) {
    let Some(task) = studio.world.layout.type_id("Task") else { return };
    let last = studio.world.table(task).next;
    while studio.left > 0 {
        let entity = Key { ty: task, id: studio.rng.random_range(1..last) };
        let Some(project) = studio.world.project(entity) else {
            if last < 30 {
                return;
            }
            continue;
        };
        let day = day(studio.rng.random_range(0..700));
        let mut cells: Cells = vec![
            ("entity", Cell::Link(entity)),
            ("project", Cell::Link(project)),
            ("date", Cell::Date(day)),
            ("duration", Cell::Int(30 * studio.rng.random_range(1..17))),
        ];
        cells.extend(studio.person().map(|user| ("user", Cell::Link(user))));
        studio.put_stamped("TimeLog", cells);
    }
}

fn day(number: u64) -> Day {
    let first = Timestamp(END.0 - SPAN).day().0;
    Day(first.checked_add_days(Days::new(number)).unwrap_or(first))
}

/// One project in the making.
struct Production<'s, 'w> {
    studio: &'s mut Studio<'w>,
    project: Key,
    code: String,
    /// The project is full when so many rows are left for the others.
    floor: usize,
    assets: Vec<Key>,
    versions: Vec<Key>,
}

impl<'s, 'w> Production<'s, 'w> {
    fn start(studio: &'s mut Studio<'w>, number: usize, floor: usize) -> Self {
        let name = PROJECTS[number % PROJECTS.len()];
        let season = number / PROJECTS.len();
        let name = if season == 0 { name.to_owned() } else { format!("{name} {}", season + 1) };
        let code: String = name.chars().filter(char::is_ascii_alphanumeric).take(6).collect::<String>().to_lowercase();
        let code = format!("{code}{number}");
        let users: Vec<Key> = (0..6).filter_map(|_| studio.person()).collect();
        let mut users = users;
        users.sort_unstable();
        users.dedup();
        let status = studio.one_of(&["Active", "Active", "Bidding", "Hold"]);
        let mut cells: Cells = vec![
            ("name", Cell::Text(name.into())),
            ("code", Cell::text(&code)),
            ("tank_name", Cell::text(&code)),
            ("sg_status", Cell::text(status)),
            ("sg_type", Cell::text(if number % 3 == 1 { "Episodic" } else { "Feature" })),
            ("users", Cell::links(users.clone())),
        ];
        if number > 4 && number % 7 == 6 {
            cells.push(("archived", Cell::Bool(true)));
        }
        studio.maybe(60, &mut cells, "sg_description", |studio| Cell::Text(studio.sentence(8).into()));
        let project = studio.put_stamped("Project", cells);
        studio.connect("ProjectUserConnection", ("project", project), "user", &users);
        Self { studio, project, code, floor, assets: Vec::new(), versions: Vec::new() }
    }

    fn has_room(&self) -> bool {
        self.studio.left > self.floor + BUNDLE && self.studio.left > BUNDLE
    }

    fn fill(mut self) {
        self.pipeline_configuration();
        let room = self.studio.left.saturating_sub(self.floor);
        let mut shots = Vec::new();
        let (mut episode, mut shots_left) = (None, 0);
        let mut sequence: Option<(Key, String)> = None;
        for number in 0.. {
            if !self.has_room() {
                break;
            }
            // One asset for every three shots, the first ones before any shot.
            if number % 4 == 0 || self.assets.len() < (room / 2_000).min(6) {
                self.asset(number);
                continue;
            }
            if shots_left == 0 {
                if let (Some((sequence, code)), 0) = (&sequence, number % 3) {
                    self.cut((*sequence, code), &shots);
                }
                shots.clear();
                if number % 40 == 1 {
                    episode = Some(self.episode(number));
                }
                sequence = Some(self.sequence(number, episode));
                shots_left = self.studio.rng.random_range(6..24);
            }
            shots_left -= 1;
            if let Some((sequence, code)) = sequence.clone() {
                shots.push(self.shot(number, sequence, &code));
            }
            if number % 50 == 49 {
                self.playlist(number);
            }
        }
    }

    fn in_project(&self) -> Cells {
        vec![("project", Cell::Link(self.project))]
    }

    /// What Toolkit finds a project by.
    fn pipeline_configuration(&mut self) {
        let mut cells = self.in_project();
        cells.extend([
            ("code", Cell::text("Primary")),
            ("plugin_ids", Cell::text("basic.*")),
            ("linux_path", Cell::Text(format!("/mnt/pipeline/{}", self.code).into())),
        ]);
        self.studio.put_stamped("PipelineConfiguration", cells);
    }

    /// An edit of a sequence: its shots in their order.
    fn cut(&mut self, sequence: (Key, &str), shots: &[Key]) {
        let (sequence, code) = sequence;
        let mut cells = self.in_project();
        cells.extend([
            ("code", Cell::Text(format!("{code}_cut").into())),
            ("entity", Cell::Link(sequence)),
            ("revision_number", Cell::Int(1)),
            ("fps", Cell::Float(24.0)),
            ("sg_status_list", Cell::text("ip")),
        ]);
        let cut = self.studio.put_stamped("Cut", cells);
        for (order, shot) in (1..).zip(shots) {
            let length = self.studio.rng.random_range(24..240);
            let mut cells = self.in_project();
            cells.extend([
                ("code", Cell::Text(format!("{code}_{order:03}").into())),
                ("cut", Cell::Link(cut)),
                ("cut_order", Cell::Int(order)),
                ("shot", Cell::Link(*shot)),
                ("cut_item_in", Cell::Int(1001)),
                ("cut_item_out", Cell::Int(1000 + length)),
                ("cut_item_duration", Cell::Int(length)),
            ]);
            self.studio.put_stamped("CutItem", cells);
        }
    }

    fn episode(&mut self, number: i64) -> Key {
        let mut cells = self.in_project();
        cells.push(("code", Cell::Text(format!("{}_ep{:02}", self.code, number / 40 + 1).into())));
        cells.push(("sg_status_list", Cell::text("ip")));
        self.studio.put_stamped("Episode", cells)
    }

    fn sequence(&mut self, number: i64, episode: Option<Key>) -> (Key, String) {
        let code = format!("{:03}", (number / 3 + 1) * 10);
        let mut cells = self.in_project();
        cells.push(("code", Cell::text(&code)));
        cells.push(("sg_status_list", Cell::text("ip")));
        cells.extend(episode.map(|episode| ("episode", Cell::Link(episode))));
        self.studio.maybe(40, &mut cells, "description", |studio| Cell::Text(studio.sentence(6).into()));
        (self.studio.put_stamped("Sequence", cells), code)
    }

    fn asset(&mut self, number: i64) {
        let name = self.studio.one_of(&ASSETS);
        let code = format!("{name}_{number:04}");
        let (kind, status) = (self.studio.one_of(&ASSET_TYPES), self.studio.one_of(&["wtg", "rdy", "ip", "fin"]));
        let mut cells = self.in_project();
        cells.extend([
            ("code", Cell::text(&code)),
            ("sg_asset_type", Cell::text(kind)),
            ("sg_status_list", Cell::text(status)),
        ]);
        self.studio.maybe(60, &mut cells, "description", |studio| Cell::Text(studio.sentence(7).into()));
        self.dress(&mut cells);
        let asset = self.studio.put_stamped("Asset", cells);
        self.assets.push(asset);
        self.work_on(asset, &code, self.studio.asset_steps.clone());
    }

    fn shot(&mut self, number: i64, sequence: Key, sequence_code: &str) -> Key {
        let code = format!("{sequence_code}_{:04}", number * 10);
        let (first, length) = (1001, self.studio.rng.random_range(24..240));
        let status = self.studio.one_of(&SHOT_STATUS);
        let mut cells = self.in_project();
        cells.extend([
            ("code", Cell::text(&code)),
            ("sg_sequence", Cell::Link(sequence)),
            ("sg_status_list", Cell::text(status)),
            ("sg_cut_in", Cell::Int(first)),
            ("sg_cut_out", Cell::Int(first + length - 1)),
            ("sg_cut_duration", Cell::Int(length)),
            ("sg_cut_order", Cell::Int(number)),
        ]);
        self.studio.maybe(70, &mut cells, "description", |studio| Cell::Text(studio.sentence(9).into()));
        self.dress(&mut cells);
        let mut assets: Vec<Key> = (0..self.studio.rng.random_range(0..4)).filter_map(|_| self.any_asset()).collect();
        assets.sort_unstable();
        assets.dedup();
        cells.push(("assets", Cell::links(assets.clone())));
        let shot = self.studio.put_stamped("Shot", cells);
        self.studio.connect("AssetShotConnection", ("shot", shot), "asset", &assets);
        self.work_on(shot, &code, self.studio.shot_steps.clone());
        if self.studio.chance(35) {
            self.note(shot, &code);
        }
        shot
    }

    fn any_asset(&mut self) -> Option<Key> {
        let count = self.assets.len();
        (count > 0).then(|| self.assets[self.studio.rng.random_range(0..count)])
    }

    /// Adds a picture and tags, or not.
    fn dress(&mut self, cells: &mut Cells) {
        self.studio.maybe(50, cells, "image", |studio| Cell::Int(studio.rng.random_range(1_000_000..2_000_000)));
        self.studio.maybe(20, cells, "tags", |studio| {
            let mut tags: Vec<Key> = (0..2).filter_map(|_| studio.pick(|studio| &studio.tags)).collect();
            tags.dedup();
            Cell::links(tags)
        });
    }

    fn work_on(&mut self, entity: Key, code: &str, steps: Vec<(Key, &'static str)>) {
        let mut start = self.studio.rng.random_range(0..600u64);
        let mut before: Option<Key> = None;
        for (step, short) in steps {
            if self.studio.chance(15) {
                continue;
            }
            let days = self.studio.rng.random_range(1..15u64);
            let task = self.task(entity, (step, short), (start, days), before);
            start += days;
            before = Some(task);
            let versions = self.studio.one_of(&[0, 0, 1, 1, 2]);
            for number in 1..=versions {
                self.version((entity, code), (task, short), number);
            }
        }
    }

    fn task(&mut self, entity: Key, step: (Key, &str), when: (u64, u64), before: Option<Key>) -> Key {
        let status = self.studio.one_of(&TASK_STATUS);
        let mut cells = self.in_project();
        cells.extend([
            ("content", Cell::text(step.1)),
            ("entity", Cell::Link(entity)),
            ("step", Cell::Link(step.0)),
            ("sg_status_list", Cell::text(status)),
        ]);
        if self.studio.chance(80) {
            cells.push(("start_date", Cell::Date(day(when.0))));
            cells.push(("due_date", Cell::Date(day(when.0 + when.1))));
            cells.push(("duration", Cell::Int(480 * when.1 as i64)));
        }
        self.studio.maybe(70, &mut cells, "task_assignees", |studio| {
            let mut people: Vec<Key> = (0..studio.rng.random_range(1..3)).filter_map(|_| studio.person()).collect();
            people.dedup();
            Cell::links(people)
        });
        self.studio.maybe(20, &mut cells, "sg_priority_1", |studio| Cell::text(studio.one_of(&["1_Tier", "2_Tier"])));
        let before = before.filter(|_| self.studio.chance(30));
        cells.extend(before.map(|before| ("upstream_tasks", Cell::links(vec![before]))));
        let task = self.studio.put_stamped("Task", cells);
        if let Some(before) = before {
            self.studio.connect("TaskDependency", ("task", task), "dependent_task", &[before]);
        }
        task
    }

    fn version(&mut self, of: (Key, &str), by: (Key, &str), number: i64) {
        let ((entity, code), (task, short)) = (of, by);
        let name = format!("{code}_{short}_v{number:03}");
        let folder = format!("/mnt/projects/{}/{code}/{short}", self.code);
        let frames = self.studio.rng.random_range(24..240);
        let status = self.studio.one_of(&VERSION_STATUS);
        let mut cells = self.in_project();
        cells.extend([
            ("code", Cell::text(&name)),
            ("entity", Cell::Link(entity)),
            ("sg_task", Cell::Link(task)),
            ("sg_status_list", Cell::text(status)),
            ("frame_count", Cell::Int(frames)),
            ("frame_range", Cell::Text(format!("1001-{}", 1000 + frames).into())),
            ("sg_first_frame", Cell::Int(1001)),
            ("sg_last_frame", Cell::Int(1000 + frames)),
            ("sg_path_to_movie", Cell::Text(format!("{folder}/{name}.mov").into())),
        ]);
        cells.extend(self.studio.person().map(|user| ("user", Cell::Link(user))));
        self.studio.maybe(40, &mut cells, "description", |studio| Cell::Text(studio.sentence(6).into()));
        self.studio.maybe(60, &mut cells, "image", |studio| Cell::Int(studio.rng.random_range(1_000_000..2_000_000)));
        let version = self.studio.put_stamped("Version", cells);
        self.versions.push(version);
        self.published_file((version, &name), (entity, task), &folder, number);
    }

    fn published_file(&mut self, version: (Key, &str), of: (Key, Key), folder: &str, number: i64) {
        let (version, name) = version;
        let file = format!("{folder}/{name}.ma");
        let relative = file.trim_start_matches("/mnt/projects/").to_owned();
        let storage = self.studio.storage.map_or(0, |key| key.id);
        let path = json!({"local_path_linux": file, "link_type": "local", "name": format!("{name}.ma"),
            "local_storage": {"type": "LocalStorage", "id": storage, "name": "primary"}, "relative_path": relative,
            "content_type": null, "url": format!("file://{file}"), "type": "Attachment", "id": version.id});
        let mut cells = self.in_project();
        cells.extend([
            ("code", Cell::Text(format!("{name}.ma").into())),
            ("name", Cell::text(name.rsplit_once("_v").map_or(name, |(name, _)| name))),
            ("version", Cell::Link(version)),
            ("entity", Cell::Link(of.0)),
            ("task", Cell::Link(of.1)),
            ("version_number", Cell::Int(number)),
            ("sg_status_list", Cell::text("cmpt")),
            ("path", Cell::Json(path.to_string().into())),
            ("path_cache", Cell::Text(relative.into())),
        ]);
        cells.extend(self.studio.pick(|studio| &studio.file_types).map(|ty| ("published_file_type", Cell::Link(ty))));
        self.studio.put_stamped("PublishedFile", cells);
    }

    fn note(&mut self, shot: Key, code: &str) {
        let (content, status) = (self.studio.sentence(14), self.studio.one_of(&["opn", "ip", "clsd"]));
        let mut cells = self.in_project();
        cells.extend([
            ("subject", Cell::Text(format!("Note on {code}").into())),
            ("content", Cell::Text(content.into())),
            ("note_links", Cell::links(vec![shot])),
            ("sg_status_list", Cell::text(status)),
            ("sg_note_type", Cell::text("Internal")),
        ]);
        cells.extend(self.studio.person().map(|user| ("user", Cell::Link(user))));
        cells.extend(self.studio.person().map(|user| ("addressings_to", Cell::links(vec![user]))));
        let note = self.studio.put_stamped("Note", cells);
        for _ in 0..self.studio.one_of(&[0, 0, 1, 2]) {
            let content = self.studio.sentence(8);
            let at = END.0 - self.studio.rng.random_range(0..SPAN);
            let mut cells: Cells = vec![
                ("content", Cell::Text(content.into())),
                ("entity", Cell::Link(note)),
                ("created_at", Cell::Moment(Timestamp(at))),
            ];
            cells.extend(self.studio.person().map(|user| ("user", Cell::Link(user))));
            self.studio.put("Reply", cells);
        }
    }

    fn playlist(&mut self, number: i64) {
        let count = self.versions.len();
        let versions = self.versions[count.saturating_sub(12)..].to_vec();
        let mut cells = self.in_project();
        cells.push(("code", Cell::Text(format!("Dailies {number:04}").into())));
        cells.push(("versions", Cell::links(versions.clone())));
        let playlist = self.studio.put_stamped("Playlist", cells);
        for (order, version) in versions.into_iter().enumerate() {
            let cells = vec![
                ("playlist", Cell::Link(playlist)),
                ("version", Cell::Link(version)),
                ("sg_sort_order", Cell::Int(order as i64 + 1)),
            ];
            self.studio.put("PlaylistVersionConnection", cells);
        }
    }
}

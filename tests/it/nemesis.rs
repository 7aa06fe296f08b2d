//! Random mixtures of all faults with edits of every kind, by seed: an hour of a site in
//! stepped time, the follower killed and started again in it.
//!
//! After every step, each row that counts as fresh is looked up in the history of the site;
//! a minute after the last fault everything must be right but changes without events, and
//! those after the light scan.
//!
//! ```text
//! SGCACHE_TEST_NEMESIS_SEEDS=1000 cargo test --test it nemesis -- --ignored --nocapture
//! SGCACHE_TEST_NEMESIS_SEED=7 cargo test --test it nemesis -- --ignored --nocapture
//! ```
//!
//! A divergence is printed in a line with its seed. The second form looks for the smallest
//! mixture that still shows it.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sgcache::sim::Site;
use sgcache::sync::{Settings, Steps, Stopped};

use crate::edits::{EDITS, Made, fill};
use crate::observed::Observed;
use crate::sync_cache::{Cache, empty_site, happen, to};

/// Mixtures of an everyday run.
const SEEDS: u64 = 12;
/// How long a mixture lasts, in the time of the site.
const HOUR: Duration = Duration::from_secs(3600);
/// How many smaller mixtures are tried to explain a divergence.
const SHRINKING_RUNS: usize = 80;
/// The project that is hidden at times. Nothing links to its rows.
const HIDDEN_PROJECT: i64 = 2;

const SERVED: &str = "served as fresh";

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// One of [`EDITS`].
    Edit(usize),
    /// One of [`silent_writes`], by a script whose events are off.
    SilentWrite(usize),
    /// Creations of one transaction.
    Storm(usize),
    /// A transaction that writes and stays open, with event ids that it holds.
    Begin {
        ids: usize,
    },
    /// The end of the oldest or newest open transaction.
    End {
        newest: bool,
        commits: bool,
    },
    /// Ids of the event log that are never seen.
    BurnIds(usize),
    /// Rows, or events, are seen later than they are written.
    Lag {
        of: &'static str,
        millis: u64,
    },
    /// One of [`TROUBLES`] for a share of the requests.
    Trouble {
        number: usize,
        chance: f64,
    },
    EndTrouble,
    HideProject,
    ShowProjects,
    Backup,
    Restore,
    /// A row is gone as if it had never been.
    Purge(usize),
    /// Entries of the event log that are older than these seconds are gone.
    Retention(u64),
    /// One of [`ODD_EVENTS`].
    OddEvent(usize),
    /// The process dies within the next step, at one of its crash points.
    Kill {
        point: i64,
    },
    /// The process dies and what it stored is gone.
    LoseStore,
    LoseState,
    /// The process dies and an older copy of its store, or its state, is put back.
    OlderFile(&'static str),
    /// Bytes of the store are overwritten while the process is down.
    Damage {
        at: f64,
    },
}

/// What requests meet, in the words of the admin endpoint.
fn troubles() -> Vec<Value> {
    vec![
        json!({"status": 503}),
        json!({"busy": {"status": 429, "retry_after": "2s"}}),
        json!("html"),
        json!("truncated"),
        json!("dropped_after_commit"),
        json!("dropped_before"),
        json!({"fault": [104, "the site is busy"]}),
        json!({"answer": {"status": 200, "body": "{\"results\": null}"}}),
        json!("no_rows"),
    ]
}

const TROUBLES: usize = 9;

fn silent_writes(made: &Made) -> Vec<Value> {
    let update = |kind: &str, id: i64, fields: Value| json!({"update": {"type": kind, "id": id, "fields": fields}});
    let shot = made.shots[1];
    vec![
        update("Shot", shot, json!({"code": "changed silently"})),
        update("Shot", shot, json!({"sg_sequence": to("Sequence", made.sequences[3])})),
        update("Asset", made.assets[1], json!({"shots": [to("Shot", shot)]})),
        update("Asset", made.assets[0], json!({"sg_status_list": "omt"})),
        update("Sequence", made.sequences[0], json!({"sg_status_list": "omt"})),
        json!({"create": {"type": "Version", "fields": {"code": "silent", "project": to("Project", 1), "entity": to("Shot", shot)}}}),
        json!({"retire": to("Task", made.tasks[2])}),
        json!({"revive": to("Task", made.tasks[2])}),
        json!({"retire": to("Asset", made.assets[2])}),
    ]
}

const SILENT_WRITES: usize = 9;

/// Makes something happen; what the site refuses did not happen.
fn perform(site: &Arc<Site>, action: Value) {
    drop(site.perform(&serde_json::from_value(action).expect("an action")));
}

/// Entries of shapes that no documentation knows.
fn odd_events() -> Vec<Value> {
    vec![
        json!({"event_type": "Shotgun_Shot_Change"}),
        json!({"event_type": "Shotgun_Shot_Change", "meta": {"type": "attribute_change"}, "entity": to("Shot", 3)}),
        json!({"event_type": "Shotgun_Shot_New", "entity": to("Shot", 999_999)}),
        json!({"event_type": "Shotgun_Shot_Retirement_Of_Some_Other_Kind", "entity": to("Shot", 1)}),
        json!({"event_type": "x", "meta": [], "entity": null}),
    ]
}

const ODD_EVENTS: usize = 5;

/// What happens at one moment, and the step after it.
#[derive(Clone)]
struct Moment {
    happenings: Vec<Happening>,
    step: Duration,
}

impl fmt::Debug for Moment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} then {:?}", self.happenings, self.step)
    }
}

fn pick<T: Copy>(rng: &mut SmallRng, choices: &[T]) -> T {
    *choices.choose(rng).expect("a choice")
}

fn happening(rng: &mut SmallRng) -> Happening {
    match rng.random_range(0..100) {
        0..50 => Happening::Edit(rng.random_range(0..EDITS.len())),
        50..54 => Happening::SilentWrite(rng.random_range(0..SILENT_WRITES)),
        54..56 => Happening::Storm(rng.random_range(5..60)),
        56..61 => Happening::Begin { ids: rng.random_range(0..30) },
        61..66 => Happening::End { newest: rng.random(), commits: rng.random_bool(0.8) },
        66..68 => Happening::BurnIds(rng.random_range(1..300)),
        68..73 => Happening::Lag {
            of: pick(rng, &["rows", "rows", "events"]),
            millis: pick(rng, &[0, 700, 1_500, 3_000, 6_000]),
        },
        73..79 => {
            Happening::Trouble { number: rng.random_range(0..TROUBLES), chance: pick(rng, &[0.05, 0.25, 0.5, 1.0]) }
        }
        79..86 => Happening::EndTrouble,
        86 => Happening::HideProject,
        87..89 => Happening::ShowProjects,
        89 => Happening::Backup,
        90 => Happening::Restore,
        91 => Happening::Purge(rng.random_range(0..4)),
        92 => Happening::Retention(pick(rng, &[60, 600])),
        93 => Happening::OddEvent(rng.random_range(0..ODD_EVENTS)),
        94..97 => Happening::Kill { point: rng.random_range(0..40) },
        97 => pick_file_fault(rng),
        98 => Happening::OlderFile(pick(rng, &["store", "state"])),
        _ => Happening::Damage { at: rng.random() },
    }
}

fn pick_file_fault(rng: &mut SmallRng) -> Happening {
    if rng.random() { Happening::LoseStore } else { Happening::LoseState }
}

/// The mixture of a seed.
fn mixture(seed: u64) -> Vec<Moment> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut moments = Vec::new();
    let mut passed = Duration::ZERO;
    while passed < HOUR {
        let happenings = (0..rng.random_range(0..4)).map(|_| happening(&mut rng)).collect();
        // Busy minutes with short steps, quiet ones with long ones.
        let step = Duration::from_millis(pick(&mut rng, &[700, 700, 1_300, 2_000, 2_000, 5_000, 30_000, 300_000]));
        passed += step;
        moments.push(Moment { happenings, step });
    }
    moments
}

/// What a mixture is played on.
struct Play {
    observed: Observed,
    made: Made,
    page: u32,
    /// Copies of the data directory that were taken on the way, newest last.
    copies: Vec<Vec<(PathBuf, Vec<u8>)>>,
    open: Vec<String>,
    begun: usize,
    /// Whether entries below the newest one may be visible since the last step, or later.
    late_entries: bool,
}

impl Play {
    async fn begin(seed: u64) -> Self {
        let site = empty_site();
        let made = fill(&site);
        site.create("Project", json!({"name": "Secret"})).expect("a project");
        for number in 0..4 {
            let fields = json!({"code": format!("secret {number}"), "project": to("Project", HIDDEN_PROJECT)});
            site.create("Shot", fields).expect("a shot");
        }
        site.troubles.reseed(seed);
        let page = u32::try_from(5 + seed % 36).expect("a page");
        let cache = Cache::live(site).await;
        happen(cache.site(), json!({"backup": "latest"}));
        let observed = Observed::of(cache);
        let mut play =
            Self { observed, made, page, copies: Vec::new(), open: Vec::new(), begun: 0, late_entries: false };
        play.copy_files();
        play
    }

    /// Plays a mixture; returns the first divergence.
    async fn play(&mut self, moments: &[Moment]) -> Result<(), String> {
        for (number, moment) in moments.iter().enumerate() {
            for happening in &moment.happenings {
                self.make_happen(happening).await;
            }
            self.step(moment.step).await.map_err(|what| format!("after moment {number}: {what}"))?;
            if number % 30 == 29 {
                self.copy_files();
            }
        }
        self.end_faults().await;
        self.quiet_with_operator("in quiet").await?;
        self.compare(false, "a minute after the last fault").await?;
        // The fast and the light scans.
        for _ in 0..75 {
            self.step(Duration::from_secs(60)).await.map_err(|what| format!("while scanning: {what}"))?;
        }
        self.quiet_with_operator("after the scans").await?;
        self.compare(true, "after the light scan").await
    }

    /// A minute and a half in which stopped deletions are confirmed soon after the circuit
    /// breaker stops them: it does when absences are believed, which takes several reads.
    async fn quiet_with_operator(&mut self, when: &str) -> Result<(), String> {
        for number in 1..=45 {
            self.step(Duration::from_secs(2)).await.map_err(|what| format!("{when}: {what}"))?;
            if number % 5 == 0 {
                self.confirm_deletions().await;
            }
        }
        Ok(())
    }

    /// Confirms the deletions that the circuit breaker stopped, as an operator does who
    /// knows that the site was restored or purged.
    async fn confirm_deletions(&self) {
        let now = self.observed.cache.tick(Duration::ZERO);
        for layout in self.observed.cache.layouts() {
            let state = self.observed.cache.state();
            state.confirm_deletions(&layout.entity_type, now).await.expect("a confirmation");
        }
    }

    async fn compare(&self, with_silent: bool, when: &str) -> Result<(), String> {
        let differences = self.observed.differences(with_silent).await;
        if differences.is_empty() { Ok(()) } else { Err(format!("{when}: {}", differences.join("; "))) }
    }

    /// Makes a step as the daemon does: what fails is done again with the next one.
    async fn step(&mut self, by: Duration) -> Result<(), String> {
        let now = self.observed.cache.tick(by);
        self.start(Steps::default()).await;
        if !self.observed.cache.is_started() {
            return Ok(());
        }
        let follower = self.observed.cache.follower();
        // Of a page that is full the next one is read at once.
        loop {
            let stepped = follower.step(now).await;
            if !stepped.as_ref().is_ok_and(|step| step.polled.full) {
                self.late_entries &= !(stepped.is_ok() && self.open.is_empty());
                break;
            }
        }
        drop(follower.import_pending().await);
        match self.observed.fresh_differences().await {
            differences if differences.is_empty() => Ok(()),
            differences => Err(format!("{SERVED}: {}", differences.join("; "))),
        }
    }

    /// Starts the follower where none runs; a site that does not answer has it wait.
    async fn start(&mut self, steps: Steps) {
        if !self.observed.cache.is_started() {
            // Time passes here with requests only: nothing may wait for the next one.
            let settings = Settings { poll_min: Duration::ZERO, ..Settings::default() };
            drop(self.observed.cache.start_with(steps, settings, self.page).await);
        }
    }

    async fn make_happen(&mut self, happening: &Happening) {
        let made = &self.made;
        match happening {
            Happening::Edit(number) => self.observed.edit(|site| (EDITS[*number].1)(site, made)).await,
            Happening::SilentWrite(number) => {
                let write = json!({"write": {"silently": true, "writes": [silent_writes(made)[*number]]}});
                self.observed.edit_silently(|site| perform(site, write)).await;
            }
            Happening::Storm(count) => {
                let shot = to("Shot", made.shots[count % 4]);
                let fields = json!({"content": "storm {n}", "entity": shot, "project": to("Project", 1)});
                let writes = json!({"writes": [{"create": {"type": "Task", "fields": fields}}], "repeat": count});
                self.order(json!({"write": writes})).await;
            }
            Happening::Begin { ids } => self.begin_transaction(*ids).await,
            Happening::End { newest, commits } => self.end_transaction(*newest, *commits).await,
            Happening::BurnIds(count) => self.order(json!({"burn_ids": count})).await,
            Happening::Lag { of, millis } => {
                // The site has one lag at a time.
                let behind = if *of == "events" { *millis } else { 0 };
                self.late_entries |= behind > 0;
                self.observed.delay_events(Duration::from_millis(behind));
                self.order(json!({"lag": {"of": of, "by": format!("{millis}ms")}})).await;
            }
            Happening::Trouble { number, chance } => {
                let mut rule = json!({"trouble": troubles()[*number], "chance": chance});
                if rule["trouble"] == "no_rows" {
                    rule["method"] = "read".into();
                }
                self.order(json!({"trouble": rule})).await;
            }
            Happening::EndTrouble => self.order(json!("end_trouble")).await,
            Happening::HideProject => {
                self.observed.leave_out_project(HIDDEN_PROJECT);
                self.order(json!({"permissions": {"script": "sgcache", "projects": [1]}})).await;
            }
            Happening::ShowProjects => self.order(json!({"permissions": {"script": "sgcache"}})).await,
            Happening::Backup => self.order(json!({"backup": "latest"})).await,
            Happening::Restore => {
                self.open.clear();
                self.order(json!({"restore": "latest"})).await;
            }
            Happening::Purge(number) => {
                let purge = json!({"purge": to("Shot", made.shots[*number])});
                self.observed.edit_silently(|site| perform(site, purge)).await;
            }
            // Entries that are removed before they were ever visible are in no event log.
            Happening::Retention(_) if self.late_entries => {}
            Happening::Retention(seconds) => self.order(json!({"retention": {"younger": format!("{seconds}s")}})).await,
            Happening::OddEvent(number) => self.order(json!({"event": odd_events()[*number]})).await,
            Happening::Kill { point } => self.kill(*point).await,
            Happening::LoseStore => self.observed.cache.remove_store(),
            Happening::LoseState => self.observed.cache.remove_state(),
            Happening::OlderFile(prefix) => self.put_back(prefix),
            Happening::Damage { at } => self.damage(*at),
        }
    }

    async fn order(&mut self, action: Value) {
        self.observed.edit(|site| perform(site, action)).await;
    }

    async fn begin_transaction(&mut self, ids: usize) {
        self.begun += 1;
        self.late_entries = true;
        let name = format!("transaction {}", self.begun);
        self.order(json!({"begin": {"name": name, "ids": ids}})).await;
        let (shot, asset) = (self.made.shots[self.begun % 4], self.made.assets[self.begun % 4]);
        let description = format!("written by {name}");
        let writes = json!([
            {"create": {"type": "Asset", "fields": {"code": name, "project": to("Project", 1)}}},
            {"update": {"type": "Shot", "id": shot, "fields": {"description": description, "assets": [to("Asset", asset)]}}},
        ]);
        // A shot that is retired at this moment cannot be written: the transaction stays open.
        self.order(json!({"write": {"writes": writes, "transaction": name}})).await;
        self.open.push(name);
    }

    async fn end_transaction(&mut self, newest: bool, commits: bool) {
        let Some(last) = self.open.len().checked_sub(1) else { return };
        let name = self.open.remove(if newest { last } else { 0 });
        let action = if commits { json!({"commit": name}) } else { json!({"roll_back": name}) };
        self.order(action).await;
    }

    /// Lets the process die at the `point`-th crash point from its start on.
    async fn kill(&mut self, point: i64) {
        self.observed.cache.stop();
        let left = AtomicI64::new(point);
        let steps =
            Steps::with(move |name| if left.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(Stopped(name)) });
        self.start(steps).await;
        if self.observed.cache.is_started() {
            drop(self.observed.cache.follower().step(self.observed.cache.tick(Duration::from_secs(2))).await);
        }
        self.observed.cache.stop();
    }

    fn copy_files(&mut self) {
        self.observed.cache.stop();
        let files = fs::read_dir(self.observed.cache.directory()).expect("a directory");
        let paths = files.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
        self.copies.push(paths.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect());
    }

    /// Puts an older copy of the store or the state back.
    fn put_back(&mut self, prefix: &str) {
        let of_prefix =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if prefix == "store" {
            self.observed.cache.remove_store()
        } else {
            self.observed.cache.remove_state()
        }
        let copy = &self.copies[self.copies.len() / 2];
        for (path, bytes) in copy.iter().filter(|(path, _)| of_prefix(path)) {
            fs::write(path, bytes).expect("an older file");
        }
    }

    /// Overwrites bytes of the store behind the header of its file.
    fn damage(&mut self, at: f64) {
        self.observed.cache.stop();
        let path = self.observed.cache.directory().join("store.sqlite");
        let Ok(mut bytes) = fs::read(&path) else { return };
        let from = 4096 + ((bytes.len() - 4096 - 64) as f64 * at) as usize;
        bytes[from..from + 64].fill(0xab);
        fs::write(path, bytes).expect("a damaged file");
    }

    /// Ends every fault; what was never committed is.
    async fn end_faults(&mut self) {
        self.order(json!("end_trouble")).await;
        self.order(json!({"permissions": {"script": "sgcache"}})).await;
        self.observed.delay_events(Duration::ZERO);
        for of in ["rows", "events"] {
            self.order(json!({"lag": {"of": of, "by": "0ms"}})).await;
        }
        while !self.open.is_empty() {
            self.end_transaction(false, true).await;
        }
    }
}

/// Plays a mixture on a site of its own; a panic is a divergence, too.
async fn divergence(seed: u64, moments: Vec<Moment>) -> Option<String> {
    let played = tokio::spawn(async move { Play::begin(seed).await.play(&moments).await }).await;
    match played {
        Ok(result) => result.err(),
        Err(panic) => Some(format!("{panic}")),
    }
}

/// Removes moments, then single happenings, as long as the mixture still diverges.
async fn shrink(seed: u64, found: &str) -> Vec<Moment> {
    let kind = |what: &str| what.contains(SERVED);
    let diverges = |moments: Vec<Moment>| async move {
        divergence(seed, moments).await.is_some_and(|what| kind(&what) == kind(found))
    };
    let mut moments = mixture(seed);
    let after = found.strip_prefix("after moment ").and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
    moments.truncate(after.map_or(moments.len(), |last| last + 1));
    let mut runs = 0;
    let mut size = moments.len() / 2;
    while size > 0 && runs < SHRINKING_RUNS {
        let mut from = 0;
        while from < moments.len() && runs < SHRINKING_RUNS {
            let mut fewer = moments.clone();
            fewer.drain(from..(from + size).min(moments.len()));
            runs += 1;
            match diverges(fewer.clone()).await {
                true => moments = fewer,
                false => from += size,
            }
        }
        size /= 2;
    }
    for number in 0..moments.len() {
        let mut from = 0;
        while from < moments[number].happenings.len() && runs < SHRINKING_RUNS {
            let mut fewer = moments.clone();
            fewer[number].happenings.remove(from);
            runs += 1;
            match diverges(fewer.clone()).await {
                true => moments = fewer,
                false => from += 1,
            }
        }
    }
    moments
}

/// Small mixtures that once diverged, each by a fault of its own.
#[tokio::test(flavor = "multi_thread")]
async fn mixtures_that_once_diverged_do_not() {
    use Happening::*;
    let at = |happenings: Vec<Happening>, millis| Moment { happenings, step: Duration::from_millis(millis) };
    // A dirty row that cannot be proven newer than its entries, over an older store.
    let unproven = vec![at(vec![Edit(2)], 300_000), at(vec![OlderFile("store")], 700)];
    assert_eq!(divergence(18, unproven).await, None);
    // A version that the store has as retired is there again when the state is lost, and its
    // filter hides it: no import finds it, and links to it stayed hidden.
    let unknown = vec![
        at(vec![Begin { ids: 17 }], 700),
        at(vec![Begin { ids: 23 }, Begin { ids: 1 }], 30_000),
        at(vec![Begin { ids: 29 }], 5_000),
        at(vec![Edit(10)], 2_000),
        at(vec![Begin { ids: 11 }], 1_300),
        at(vec![Begin { ids: 3 }], 1_400),
        at(vec![Edit(21)], 300_000),
        at(vec![End { newest: true, commits: true }], 30_000),
        at(vec![Trouble { number: 1, chance: 0.25 }], 700),
        at(vec![LoseState], 2_000),
        at(vec![Edit(16), Edit(11)], 300_000),
        at(vec![Edit(16), Edit(2), Edit(13)], 300_000),
        at(vec![Kill { point: 8 }, EndTrouble], 700),
        at(vec![Edit(15), Edit(11), Lag { of: "events", millis: 0 }], 30_000),
    ];
    assert_eq!(divergence(14, unknown).await, None);
    // One refusal had the retired shot given up as unreadable, and links to it stayed.
    let busy = vec![at(vec![Trouble { number: 6, chance: 0.05 }, Edit(10)], 700)];
    assert_eq!(divergence(45, busy).await, None);
    // The store is lost while rows are behind their events: what those announced was lost too.
    let behind =
        vec![at(vec![Lag { of: "rows", millis: 6_000 }], 5_000), at(vec![Edit(3)], 1_300), at(vec![LoseStore], 2_000)];
    assert_eq!(divergence(45, behind).await, None);
    // Every answer of the site is empty or no rows at all: the event log seemed to be quiet.
    let empty = vec![
        at(vec![Trouble { number: 8, chance: 0.25 }, Trouble { number: 7, chance: 1.0 }], 30_000),
        at(vec![], 300_000),
        at(vec![], 300_000),
        at(vec![], 5_000),
        at(vec![Edit(2)], 300_000),
    ];
    assert_eq!(divergence(40, empty).await, None);
    // More rows vanish with a restored site than may without an operator.
    let vanished = vec![at(vec![Edit(9)], 700), at(vec![Storm(51)], 300_000), at(vec![Restore], 700)];
    assert_eq!(divergence(23, vanished).await, None);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a few mixtures still diverge: docs/RELIABILITY.md"]
async fn no_mixture_of_faults_leaves_a_wrong_row_or_serves_one_as_fresh() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let only = asked("SGCACHE_TEST_NEMESIS_SEED");
    let count = asked("SGCACHE_TEST_NEMESIS_SEEDS").unwrap_or(SEEDS);
    let seeds = only.map_or_else(|| (0..count).collect(), |seed| vec![seed]);
    let run = |seed| async move { (seed, divergence(seed, mixture(seed)).await) };
    let mut played = stream::iter(seeds).map(run).buffer_unordered(2);
    let mut failed = Vec::new();
    while let Some((seed, found)) = played.next().await {
        if let Some(what) = found {
            println!("seed {seed}: {}", what.chars().take(2_000).collect::<String>());
            failed.push((seed, what));
        }
    }
    if let ([(first, what)], Some(_)) = (&failed[..], only) {
        let smallest = shrink(*first, what).await;
        println!("the smallest mixture of seed {first}:");
        smallest.iter().for_each(|moment| println!("  {moment:?}"));
        println!("{}", divergence(*first, smallest).await.unwrap_or_default());
    }
    let failed: Vec<u64> = failed.into_iter().map(|(seed, _)| seed).collect();
    assert!(failed.is_empty(), "replay with SGCACHE_TEST_NEMESIS_SEED: {failed:?}");
}

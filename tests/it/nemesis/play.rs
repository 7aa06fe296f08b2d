//! Plays a mixture on a site of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sgcache::sync::{Settings, Steps, Stopped};

use super::mixture::{Happening, Moment, odd_events, perform, silent_writes, troubles};
use crate::edits::{EDITS, Made, fill};
use crate::observed::Observed;
use crate::sync_cache::{Cache, empty_site, happen, to};

/// The project that is hidden at times. Nothing links to its rows.
const HIDDEN_PROJECT: i64 = 2;

pub(super) const SERVED: &str = "served as fresh";

/// What a mixture is played on.
pub(super) struct Play {
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
    pub(super) async fn begin(seed: u64) -> Self {
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
    pub(super) async fn play(&mut self, moments: &[Moment]) -> Result<(), String> {
        for (number, moment) in moments.iter().enumerate() {
            tracing::info!(number, ?moment);
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
        for _ in 0..13 {
            self.step(Duration::from_secs(360)).await.map_err(|what| format!("while scanning: {what}"))?;
        }
        self.quiet_with_operator("after the scans").await?;
        self.compare(true, "after the light scan").await
    }

    /// A minute and a half in which stopped deletions are confirmed soon after the circuit
    /// breaker stops them: it does when absences are believed, which takes several reads.
    async fn quiet_with_operator(&mut self, when: &str) -> Result<(), String> {
        for _ in 0..9 {
            self.step(Duration::from_secs(10)).await.map_err(|what| format!("{when}: {what}"))?;
            self.confirm_deletions().await;
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
        self.trace_dirty_keys().await;
        match self.observed.fresh_differences().await {
            differences if differences.is_empty() => Ok(()),
            differences => Err(format!("{SERVED}: {}", differences.join("; "))),
        }
    }

    /// Logs what stays dirty.
    async fn trace_dirty_keys(&self) {
        if tracing::enabled!(tracing::Level::TRACE) {
            for mark in self.observed.cache.state().marks(100).await.expect("dirty keys") {
                let reasons: Vec<_> = mark.kinds.names().collect();
                tracing::trace!(key = %mark.key, ?reasons, since = mark.since.at.0, due = mark.due_at.0, ?mark.expected, "dirty");
            }
            let status = self.observed.cache.state().replication_status().await.expect("a status");
            tracing::trace!(complete = ?status.complete_as_of, unread = ?status.unread, "fresh");
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

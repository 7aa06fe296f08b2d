//! What the read proxy has answered within one hour or one day, in bounded memory.
//!
//! Bounds: methods are those that read, pass-throughs and callers beyond a number are
//! counted in one row `other`, and texts are cut. A bucket takes less than 40 kB, usually
//! 1 or 2 kB.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::latency::Latencies;

/// Rows of pass-throughs in a bucket.
const MAX_PASSES: usize = 64;
/// Callers in a bucket.
const MAX_CALLERS: usize = 48;
/// Slow pass-throughs in a bucket.
pub(super) const MAX_SLOWEST: usize = 10;
/// Characters of a text in a bucket.
const MAX_TEXT: usize = 200;
/// The name of what is beyond a bound.
pub const OTHER: &str = "other";

/// What in the configuration would have let the cache answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// Cache the type.
    CacheType {
        /// The entity type.
        entity_type: String,
    },
    /// Cache the field.
    CacheField {
        /// The entity type.
        entity_type: String,
        /// The field of it.
        field: String,
    },
    /// Cache all entities of the type.
    DropFilters {
        /// The entity type.
        entity_type: String,
    },
    /// Name a reading in `api.semantics`.
    ChooseSemantics {
        /// Its name there.
        semantics: String,
    },
    /// Map the caller in `api.callers`.
    MapCaller {
        /// As in the access log: `script NAME` or `login NAME`.
        caller: String,
    },
}

/// Why a read went to the site, in words that do not differ from row to row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    /// What in the request is the reason.
    pub label: String,
    /// The sentence of `explain` on what to change; `None` where nothing helps.
    pub remedy: Option<String>,
    /// The same for a program.
    pub change: Option<Change>,
}

/// How a call was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<'a> {
    /// From the cache.
    Cache {
        /// Whether it was older than usual, because the site was down.
        stale: bool,
    },
    /// By the site.
    Site {
        /// The word in `x-sgcache`.
        reason: &'a str,
        /// The same in words.
        cause: &'a Cause,
    },
    /// By nothing: the site could not be reached and the cache had no answer.
    Failed,
}

/// One read through the proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<'a> {
    /// When, by the clock of this machine.
    pub at: DateTime<Utc>,
    /// One of the methods that only read.
    pub method: &'a str,
    /// The entity type that it names.
    pub entity_type: Option<&'a str>,
    /// Who asked, as in the access log.
    pub caller: &'a str,
    /// How it was answered.
    pub answer: Answer<'a>,
    /// How long the caller waited, in milliseconds.
    pub milliseconds: f64,
}

/// What became of the calls of one method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MethodCounts {
    /// Answers of the cache.
    pub cache: Latencies,
    /// Answers of the site.
    pub site: Latencies,
}

/// Reads that the site answered for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PassCounts {
    /// As in the header `x-sgcache`; `other` for what is beyond the bound.
    pub reason: String,
    /// The entity type that was asked for; `None` for none, or for several.
    pub entity_type: Option<String>,
    /// The reason in words.
    pub label: String,
    /// What to change, in words.
    pub remedy: Option<String>,
    /// What to change.
    pub change: Option<Change>,
    /// How many.
    pub calls: u64,
    /// How long their callers waited, in milliseconds.
    pub waited_ms: f64,
}

/// What one caller was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallerCounts {
    /// Answers of the cache, by method.
    pub hits: BTreeMap<String, u64>,
    /// How long those took, in milliseconds.
    pub cache_ms: f64,
    /// Answers of the site.
    pub passes: u64,
}

/// A read that took the site long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowPass {
    /// When it was answered.
    pub at: DateTime<Utc>,
    /// The method.
    pub method: String,
    /// The entity type that it names.
    pub entity_type: Option<String>,
    /// Who waited.
    pub caller: String,
    /// How long, in milliseconds.
    pub ms: f64,
    /// Why the site was asked, as in the header `x-sgcache`.
    pub reason: String,
}

/// Writes that went through the proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WriteCounts {
    /// Those that the site has made, or may have made.
    pub count: u64,
    /// Calls of the JSON API that the site refused or did not answer.
    pub failed: u64,
    /// From the acknowledgement until every read from the cache shows the write.
    pub visible: Latencies,
}

/// What the proxy did within one hour or one day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// By method.
    pub methods: BTreeMap<String, MethodCounts>,
    /// Reads that were answered from the cache although older than usual.
    pub stale_hits: u64,
    /// Reads without an answer.
    pub failed: u64,
    /// Calls of any kind that came faster than they could be counted.
    pub uncounted: u64,
    /// Reads that the site answered, by reason.
    pub passes: Vec<PassCounts>,
    /// By caller.
    pub callers: BTreeMap<String, CallerCounts>,
    /// The slowest reads that the site answered, slowest first.
    pub slowest: Vec<SlowPass>,
    /// Writes.
    pub writes: WriteCounts,
}

impl Bucket {
    /// Adds a read.
    pub fn add(&mut self, read: &Read<'_>) {
        match &read.answer {
            Answer::Failed => self.failed += 1,
            Answer::Cache { stale } => {
                self.stale_hits += u64::from(*stale);
                self.methods.entry(read.method.to_owned()).or_default().cache.add(read.milliseconds);
                let caller = self.caller(read.caller);
                *caller.hits.entry(read.method.to_owned()).or_default() += 1;
                caller.cache_ms += read.milliseconds;
            }
            Answer::Site { reason, cause } => {
                self.methods.entry(read.method.to_owned()).or_default().site.add(read.milliseconds);
                self.caller(read.caller).passes += 1;
                self.add_passes(PassCounts {
                    reason: (*reason).to_owned(),
                    entity_type: read.entity_type.map(str::to_owned),
                    label: cut(&cause.label),
                    remedy: cause.remedy.as_deref().map(cut),
                    change: cause.change.clone(),
                    calls: 1,
                    waited_ms: read.milliseconds,
                });
                self.add_slow(SlowPass {
                    at: read.at,
                    method: read.method.to_owned(),
                    entity_type: read.entity_type.map(str::to_owned),
                    caller: cut(read.caller),
                    ms: read.milliseconds,
                    reason: (*reason).to_owned(),
                });
            }
        }
    }

    /// Adds another bucket; the bounds hold for the sum.
    pub fn merge(&mut self, other: &Self) {
        for (method, counts) in &other.methods {
            let own = self.methods.entry(method.clone()).or_default();
            own.cache.merge(&counts.cache);
            own.site.merge(&counts.site);
        }
        self.stale_hits += other.stale_hits;
        self.failed += other.failed;
        self.uncounted += other.uncounted;
        other.passes.iter().for_each(|pass| self.add_passes(pass.clone()));
        for (name, counts) in &other.callers {
            let own = self.caller(name);
            own.cache_ms += counts.cache_ms;
            own.passes += counts.passes;
            for (method, hits) in &counts.hits {
                *own.hits.entry(method.clone()).or_default() += hits;
            }
        }
        other.slowest.iter().for_each(|slow| self.add_slow(slow.clone()));
        self.writes.count += other.writes.count;
        self.writes.failed += other.writes.failed;
        self.writes.visible.merge(&other.writes.visible);
    }

    /// Returns the answers of the cache and those of the site.
    pub fn reads(&self) -> (u64, u64) {
        let counts = self.methods.values();
        counts.fold((0, 0), |(hits, passes), one| (hits + one.cache.count(), passes + one.site.count()))
    }

    fn caller(&mut self, name: &str) -> &mut CallerCounts {
        let name = cut(name);
        let fits = self.callers.contains_key(&name) || self.callers.len() < MAX_CALLERS;
        self.callers.entry(if fits { name } else { OTHER.to_owned() }).or_default()
    }

    fn add_passes(&mut self, pass: PassCounts) {
        let same = |one: &&mut PassCounts| (&one.reason, &one.label) == (&pass.reason, &pass.label);
        if let Some(known) = self.passes.iter_mut().find(same) {
            // A type that another one links to keeps reads of both from the cache.
            known.entity_type = known.entity_type.take().filter(|ty| Some(ty) == pass.entity_type.as_ref());
            known.calls += pass.calls;
            known.waited_ms += pass.waited_ms;
        } else if self.passes.len() < MAX_PASSES || pass.reason == OTHER {
            self.passes.push(pass);
        } else {
            let label = "further reasons, counted together".to_owned();
            self.add_passes(PassCounts {
                reason: OTHER.to_owned(),
                label,
                entity_type: None,
                remedy: None,
                change: None,
                ..pass
            });
        }
    }

    fn add_slow(&mut self, slow: SlowPass) {
        let place = self.slowest.partition_point(|one| one.ms >= slow.ms);
        if place < MAX_SLOWEST {
            self.slowest.insert(place, slow);
            self.slowest.truncate(MAX_SLOWEST);
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

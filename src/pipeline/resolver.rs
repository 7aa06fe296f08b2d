//! [`Resolver`]: from what one file says to a [`Pipeline`]. Every problem is reported
//! with its place, and a part with a problem does not keep the others from being
//! checked.

use std::sync::Arc;

use chrono_tz::Tz;
use serde_json::Value;

use super::file::{ContinuousFile, FileOutputFile, OutputsFile, PipelineFile, ScheduleFile, StepFile};
use super::{
    Arguments, Blackout, Continuous, Every, Hook, HookTarget, Hooks, JobSpec, Outputs, Params, Pipeline,
    ResolveContext, RunBudget, Schedule, Start, Step, fingerprint,
};
use crate::report::is_index_name;
use crate::yaml::{Document, Problems, has_template, nearest};

pub(super) fn known_job(
    document: &Document,
    pointer: &str,
    job: &str,
    problems: &mut Problems,
) -> Option<&'static str> {
    let known = JobSpec::NAMES.into_iter().find(|name| *name == job);
    if known.is_none() {
        let message = format!("no job is named `{job}`");
        let diagnostic = document.unknown(pointer, "SG0205", message, job, &JobSpec::NAMES).label("unknown job");
        document.report(problems, diagnostic);
    }
    known
}

/// One file, what it is resolved against, and whether its structure is right.
pub(super) struct Resolver<'a> {
    pub(super) document: &'a Document,
    pub(super) context: &'a ResolveContext,
    pub(super) fits: bool,
}

/// The steps of a file.
struct Steps {
    /// Those that could be read with their places in the file, in the order in
    /// which they run if that is known.
    parsed: Vec<(usize, Step)>,
    /// All of them in the order in which they run.
    ordered: Option<Vec<Step>>,
}

impl Resolver<'_> {
    /// Resolves what is written; without a value there is an error in `problems`.
    pub(super) fn pipeline(&self, mut file: PipelineFile, problems: &mut Problems) -> Option<Pipeline> {
        if self.fits {
            self.check_name("/name", &file.name, problems);
        }
        self.render_labels(&file.name, &mut file.labels, problems);
        let known = self.known_before_run(&file.name, Some(&file.labels));
        self.render_defaults(&known, &mut file.params, problems);
        let defaults = &self.context.defaults;
        let start = self.start(&file.name, file.continuous, file.schedule, problems);
        let runs_by_itself = !matches!(start, Some(Start::Manual));
        let params = Params::declare(self.document, file.params, runs_by_itself, problems);
        let ids: Vec<String> = file.steps.iter().flatten().map(|step| step.id.clone()).collect();
        let steps = self.steps(file.steps, &ids, problems);
        let (on_drift, on_drift_hooks) = self.reactions(file.on_drift, problems);
        let mut hooks = Hooks {
            on_drift: on_drift_hooks,
            on_error: self.hooks("on_error", file.on_error, problems),
            on_success: self.hooks("on_success", file.on_success, problems),
            always: self.hooks("always", file.always, problems),
            on_stalled: self.hooks("on_stalled", file.on_stalled, problems),
            on_recovered: self.hooks("on_recovered", file.on_recovered, problems),
        };
        let mut output_files = file.outputs.unwrap_or_default();
        // A report is written when everything else has been said.
        hooks.always.extend(output_files.file.take().map(report_file));
        let outputs = self.outputs(output_files, &known, problems);
        let blackouts = self.blackouts(&file.blackout, problems);
        let name = (file.name.as_str(), &file.labels);
        self.check_expressions(name, &params, &steps.parsed, (&on_drift, &ids), problems);
        let start = start?;
        self.check_budget(&start, &file.budget, problems);
        self.check_alarms(&start, &hooks, problems);
        let concurrency = file.concurrency.unwrap_or_default();
        let timeout = match &start {
            Start::Continuous(_) => file.timeout,
            _ => Some(file.timeout.unwrap_or(defaults.timeout)),
        };
        let retry = file.retry.unwrap_or_default().over(&defaults.retry);
        let due = due_when(&start, &blackouts);
        let written = self.without_tests();
        let mut definition = format!("{written} {timeout:?} {retry:?} {due}");
        let rendered = format!("{:?} {params:?} {:?}", file.labels, outputs.index);
        if has_template(&written.to_string()) {
            // What the environment and config.yaml put into it, too.
            definition.push_str(&rendered);
        }
        Some(Pipeline {
            file: self.document.name().to_owned(),
            written: Arc::new(written),
            description: file.description,
            labels: file.labels,
            enabled: file.enabled.unwrap_or(true),
            policy: concurrency.policy.unwrap_or_default(),
            group: concurrency.group,
            timeout,
            retry,
            params,
            steps: steps.ordered?,
            on_drift,
            hooks,
            blackouts,
            budget: file.budget,
            outputs,
            hash: format!("{:016x}", fingerprint(&definition)),
            schedule_hash: format!("{:016x}", fingerprint(&due)),
            name: file.name,
            start,
        })
    }

    /// What the file says about runs: a changed test restarts nothing.
    fn without_tests(&self) -> Value {
        let mut value = self.document.value().clone();
        value.as_object_mut().map(|map| map.remove("tests"));
        value
    }

    fn check_name(&self, pointer: &str, name: &str, problems: &mut Problems) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(allowed) {
            let message = format!("`{name}` is not a name: use letters, digits, `-` and `_`");
            self.document.report(problems, self.document.at(pointer, "SG0202", message));
        }
    }

    fn start(
        &self,
        name: &str,
        continuous: Option<ContinuousFile>,
        schedule: Option<ScheduleFile>,
        problems: &mut Problems,
    ) -> Option<Start> {
        match (continuous, schedule) {
            (Some(_), Some(_)) => {
                let message = "a pipeline is either `continuous` or has a `schedule`";
                let diagnostic = self.document.at_key("/schedule", "SG0401", message);
                self.document.report(problems, diagnostic);
                None
            }
            (Some(file), None) => Some(Start::Continuous(continuous_of(file))),
            (None, Some(file)) => self.schedule(name, file, problems).map(Start::Scheduled),
            (None, None) => Some(Start::Manual),
        }
    }

    /// What follows the site all the time may ask as often as the site allows it.
    fn check_budget(&self, start: &Start, budget: &RunBudget, problems: &mut Problems) {
        if matches!(start, Start::Continuous(_)) && *budget != RunBudget::default() {
            let message = "a continuous pipeline has no budget of its own";
            let diagnostic = self.document.at_key("/budget", "SG0212", message).label("no effect");
            let help = "`shotgun.max_rps` and `shotgun.max_concurrency` of config.yaml bound all requests together";
            self.document.report(problems, diagnostic.help(help.to_owned()));
        }
    }

    fn schedule(&self, name: &str, file: ScheduleFile, problems: &mut Problems) -> Option<Schedule> {
        let zone = match &file.timezone {
            Some(written) => self.zone(written, problems),
            None => Some(self.context.timezone),
        };
        let defaults = &self.context.defaults;
        let single = self.document.value().pointer("/schedule/cron").is_some_and(Value::is_string);
        let parsed = Schedule::new(file.cron, file.seconds, zone.unwrap_or(Tz::UTC));
        let mut schedule = match parsed {
            Ok(schedule) => schedule,
            Err((at, reason)) => {
                let pointer = match single {
                    true => "/schedule/cron".to_owned(),
                    false => format!("/schedule/cron/{at}"),
                };
                let diagnostic = self
                    .document
                    .at(&pointer, "SG0401", format!("the cron line {reason}"))
                    .label("not a cron line")
                    .help("for example \"30 2 * * *\": minute, hour, day, month, weekday".to_owned());
                self.document.report(problems, diagnostic);
                return None;
            }
        };
        zone?;
        schedule.catch_up = file.catch_up.unwrap_or(defaults.catch_up);
        schedule.overdue_after = file.overdue_after;
        schedule.catch_up_window = file.catch_up_window.unwrap_or(defaults.catch_up_window);
        let key = format!("{} {name}", self.context.site.url);
        Some(schedule.with_jitter(file.jitter.unwrap_or_default(), &key))
    }

    fn zone(&self, written: &str, problems: &mut Problems) -> Option<Tz> {
        if let Ok(zone) = written.parse() {
            return Some(zone);
        }
        let zones = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let help = nearest(written, zones).map(|near| format!("did you mean `{near}`?"));
        let diagnostic = self
            .document
            .at("/schedule/timezone", "SG0402", format!("there is no time zone `{written}`"))
            .label("unknown time zone")
            .help(help);
        self.document.report(problems, diagnostic);
        None
    }

    /// Resolves the steps, in an order in which every step comes after those
    /// that it needs, and otherwise as written.
    fn steps(&self, files: Vec<Option<StepFile>>, ids: &[String], problems: &mut Problems) -> Steps {
        let before = problems.errors();
        if files.is_empty() && self.fits {
            let diagnostic = self.document.at_key("/steps", "SG0501", "there are no steps");
            self.document.report(problems, diagnostic);
        }
        let (mut parsed, mut seen) = (Vec::new(), Vec::new());
        for (at, file) in files.into_iter().enumerate() {
            let Some(file) = file else { continue };
            self.check_step(at, &file, ids, &seen, problems);
            seen.push(file.id.clone());
            if let Some(step) = self.step(at, file, problems) {
                parsed.push((at, step));
            }
        }
        if problems.errors() > before {
            return Steps { parsed, ordered: None };
        }
        match self.in_order(parsed.clone(), problems) {
            Some(ordered) => {
                let steps = ordered.iter().map(|(_, step)| step.clone()).collect();
                Steps { parsed: ordered, ordered: Some(steps) }
            }
            None => Steps { parsed, ordered: None },
        }
    }

    fn check_step(&self, at: usize, file: &StepFile, ids: &[String], before: &[String], problems: &mut Problems) {
        let pointer = format!("/steps/{at}");
        self.check_name(&format!("{pointer}/id"), &file.id, problems);
        if before.contains(&file.id) {
            let message = format!("another step has the id `{}`", file.id);
            let diagnostic = self.document.at(&format!("{pointer}/id"), "SG0502", message);
            self.document.report(problems, diagnostic);
        }
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        for (index, need) in file.needs.iter().enumerate() {
            if !ids.contains(need) {
                let place = format!("{pointer}/needs/{index}");
                let message = format!("no step has the id `{need}`");
                let diagnostic = self.document.unknown(&place, "SG0503", message, need, &names);
                self.document.report(problems, diagnostic);
            }
        }
    }

    fn step(&self, at: usize, file: StepFile, problems: &mut Problems) -> Option<Step> {
        let job = known_job(self.document, &format!("/steps/{at}/job"), &file.job, problems)?;
        let fail_when = file.fail_when.or(JobSpec::default_fail_when(job).map(str::to_owned));
        Some(Step {
            id: file.id,
            job,
            needs: file.needs,
            when: file.when,
            arguments: Arguments::Written(object(file.with)),
            timeout: file.timeout,
            warn_when: file.warn_when,
            fail_when,
        })
    }

    fn outputs(&self, file: OutputsFile, known: &Value, problems: &mut Problems) -> Outputs {
        let built_in = Outputs::default();
        let mut elasticsearch = file.elasticsearch.unwrap_or_default();
        let before = problems.errors();
        if let Some(index) = &mut elasticsearch.index {
            self.render_known("/outputs/elasticsearch/index", index, known, problems);
        }
        if problems.errors() == before
            && let Some(index) = elasticsearch.index.as_deref().filter(|index| !is_index_name(index))
        {
            let message = format!("`{index}` is not the name of an index");
            let help =
                "begin with a letter, then lower-case letters, digits and `_`; no name of a stream, such as `runs`";
            let diagnostic = self.document.at("/outputs/elasticsearch/index", "SG0202", message).help(help.to_owned());
            self.document.report(problems, diagnostic);
        }
        Outputs {
            prometheus: file.prometheus.unwrap_or(built_in.prometheus),
            elasticsearch: elasticsearch.detail.unwrap_or_default(),
            index: elasticsearch.index,
        }
    }

    fn in_order(&self, mut waiting: Vec<(usize, Step)>, problems: &mut Problems) -> Option<Vec<(usize, Step)>> {
        let mut ordered: Vec<(usize, Step)> = Vec::new();
        while !waiting.is_empty() {
            let met = |need: &String| ordered.iter().any(|(_, step)| step.id == *need);
            let Some(next) = waiting.iter().position(|(_, step)| step.needs.iter().all(met)) else {
                let ids: Vec<&str> = waiting.iter().map(|(_, step)| step.id.as_str()).collect();
                let place = format!("/steps/{}/needs", waiting[0].0);
                let message = format!("these steps wait for each other: {}", ids.join(", "));
                let diagnostic = self.document.at_key(&place, "SG0504", message);
                self.document.report(problems, diagnostic);
                return None;
            };
            ordered.push(waiting.remove(next));
        }
        Some(ordered)
    }
}

/// Returns everything that decides when a pipeline starts by itself, for
/// comparison: the schedule and the blackouts, both with what `config.yaml` adds.
fn due_when(start: &Start, blackouts: &[Blackout]) -> String {
    let schedule = match start {
        Start::Scheduled(schedule) => schedule.fingerprint(),
        Start::Continuous(_) | Start::Manual => String::new(),
    };
    blackouts.iter().fold(schedule, |all, blackout| format!("{all} {}", blackout.fingerprint()))
}

pub(super) fn object(value: Value) -> Value {
    match value {
        Value::Null => Value::Object(serde_json::Map::new()),
        other => other,
    }
}

fn continuous_of(file: ContinuousFile) -> Continuous {
    let built_in = Continuous::default();
    let restart = file.restart.unwrap_or_default();
    let interval = file.interval.unwrap_or(built_in.interval);
    Continuous {
        interval,
        max_interval: file.max_interval.unwrap_or(built_in.max_interval).max(interval),
        stall_after: file.stall_after.unwrap_or(built_in.stall_after),
        restart_initial: restart.initial.unwrap_or(built_in.restart_initial),
        restart_max: restart.max.unwrap_or(built_in.restart_max),
        reset_after: restart.reset_after.unwrap_or(built_in.reset_after),
    }
}

fn report_file(file: FileOutputFile) -> Hook {
    Hook { target: HookTarget::File(file.path), message: None, every: Every::Run }
}

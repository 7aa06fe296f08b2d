//! From files to [`Pipeline`]s, with every problem of all files in one pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use super::context::{Context, RunFacts};
use super::file::{ContinuousFile, OutputsFile, PipelineFile, SHAPE, ScheduleFile, StepFile};
use super::{
    Arguments, Blackout, Continuous, Defaults, Hooks, JobSpec, Outputs, Params, Pipeline, Schedule, Site, Start, Step,
    fingerprint,
};
use crate::report::{Status, StepResult, Trigger};
use crate::yaml::{Diagnostic, Document, Problems, Templates, did_you_mean, has_template, join, nearest};

/// What pipelines are resolved against.
#[derive(Debug, Clone)]
pub struct ResolveContext {
    /// The zone of schedules that name none.
    pub timezone: Tz,
    /// What applies to pipelines that do not say otherwise.
    pub defaults: Defaults,
    /// The site; it decides jitter too.
    pub site: Site,
    /// The blackouts that pipelines may name.
    pub blackouts: BTreeMap<String, Blackout>,
    /// The notifiers that hooks may name.
    pub notifiers: BTreeSet<String>,
    /// Renders values and evaluates expressions.
    pub templates: Templates,
}

/// Reads every `*.yaml` and `*.yml` file of a directory, in the order of names.
///
/// # Errors
///
/// All problems of all files if one of them is an error; warnings come with
/// the pipelines.
pub fn load_directory(
    directory: &Path,
    resolve_context: &ResolveContext,
) -> Result<(Vec<Arc<Pipeline>>, Problems), Problems> {
    let listing = std::fs::read_dir(directory).map_err(|error| {
        let name = directory.display().to_string();
        Diagnostic::about_file("SG0100", &name, format!("cannot be read: {error}"))
    })?;
    let mut paths: Vec<_> = listing
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"))
        .collect();
    paths.sort();
    let mut problems = Problems::new();
    let mut documents = Vec::new();
    for path in paths {
        match Document::read(&path, &path.display().to_string()) {
            Ok(document) => documents.push(document),
            Err(found) => problems.extend(found),
        }
    }
    load(&documents, &directory.display().to_string(), resolve_context, problems)
}

/// Resolves parsed files. `origin` names them all, `problems` are those found
/// so far.
///
/// # Errors
///
/// As [`load_directory`].
pub fn load(
    documents: &[Document],
    origin: &str,
    resolve_context: &ResolveContext,
    mut problems: Problems,
) -> Result<(Vec<Arc<Pipeline>>, Problems), Problems> {
    let mut pipelines: Vec<Arc<Pipeline>> = Vec::new();
    let mut seen: HashMap<String, String> = HashMap::new();
    for document in documents {
        let Some(pipeline) = resolve(document, resolve_context, &mut problems) else {
            continue;
        };
        if let Some(other) = seen.insert(pipeline.name.clone(), document.name().to_owned()) {
            let message = format!("`{}` is the name of another pipeline too", pipeline.name);
            let diagnostic = document.at("/name", "SG0206", message).help(format!("the other one is {other}"));
            document.report(&mut problems, diagnostic);
        }
        pipelines.push(Arc::new(pipeline));
    }
    let enabled = pipelines.iter().filter(|pipeline| pipeline.enabled).count();
    if enabled == 0 && !problems.has_errors() {
        let message = format!("no pipeline is enabled ({} files seen)", documents.len());
        problems.push(Diagnostic::about_file("SG0207", origin, message).warning());
    }
    problems.finish(Some(pipelines))
}

/// Resolves one file; every problem goes to `problems`, and without a value
/// there is at least one error among them.
pub fn resolve(document: &Document, resolve_context: &ResolveContext, problems: &mut Problems) -> Option<Pipeline> {
    let before = problems.errors();
    let fits = SHAPE.check(document, "", document.value(), problems);
    if !fits {
        // Names of jobs are worth a word even beside mistakes of structure.
        check_job_names(document, problems);
        return None;
    }
    let file: PipelineFile = document.decode("", document.value(), problems)?;
    let resolver = Resolver { document, resolve_context };
    let pipeline = resolver.pipeline(file, problems)?;
    resolver.check_expressions(&pipeline, problems);
    if problems.errors() > before {
        return None;
    }
    resolver.warn_about_unused_params(&pipeline, problems);
    Some(pipeline)
}

fn check_job_names(document: &Document, problems: &mut Problems) {
    let steps = document.value().get("steps").and_then(Value::as_array);
    for (at, step) in steps.into_iter().flatten().enumerate() {
        if let Some(job) = step.get("job").and_then(Value::as_str) {
            known_job(document, &format!("/steps/{at}/job"), job, problems);
        }
    }
}

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

pub(super) struct Resolver<'a> {
    pub(super) document: &'a Document,
    pub(super) resolve_context: &'a ResolveContext,
}

impl Resolver<'_> {
    fn pipeline(&self, file: PipelineFile, problems: &mut Problems) -> Option<Pipeline> {
        self.check_name("/name", &file.name, problems);
        let defaults = &self.resolve_context.defaults;
        let start = self.start(&file.name, file.continuous, file.schedule, problems);
        let runs_by_itself = !matches!(start, Some(Start::Manual));
        let params = Params::declare(self.document, file.params, runs_by_itself, problems);
        let steps = self.steps(file.steps, problems);
        let (on_drift, on_drift_hooks) = self.reactions(file.on_drift, problems);
        let hooks = Hooks {
            on_drift: on_drift_hooks,
            on_error: self.hooks("on_error", file.on_error, problems),
            on_success: self.hooks("on_success", file.on_success, problems),
            always: self.hooks("always", file.always, problems),
        };
        let blackouts = self.blackouts(&file.blackout, problems);
        let start = start?;
        let concurrency = file.concurrency.unwrap_or_default();
        let timeout = match &start {
            Start::Continuous(_) => file.timeout,
            _ => Some(file.timeout.unwrap_or(defaults.timeout)),
        };
        let retry = file.retry.unwrap_or_default().over(&defaults.retry);
        let due = due_when(&start, &blackouts);
        let definition = format!("{} {timeout:?} {retry:?} {due}", self.document.value());
        Some(Pipeline {
            file: self.document.name().to_owned(),
            description: file.description,
            labels: file.labels,
            enabled: file.enabled.unwrap_or(true),
            policy: concurrency.policy.unwrap_or_default(),
            group: concurrency.group,
            timeout,
            retry,
            params,
            steps: steps?,
            on_drift,
            hooks,
            blackouts,
            outputs: outputs(file.outputs.unwrap_or_default()),
            hash: format!("{:016x}", fingerprint(&definition)),
            schedule_hash: format!("{:016x}", fingerprint(&due)),
            name: file.name,
            start,
        })
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

    fn schedule(&self, name: &str, file: ScheduleFile, problems: &mut Problems) -> Option<Schedule> {
        let zone = match &file.timezone {
            Some(written) => self.zone(written, problems),
            None => Some(self.resolve_context.timezone),
        };
        let defaults = &self.resolve_context.defaults;
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
        schedule.catch_up_window = file.catch_up_window.unwrap_or(defaults.catch_up_window);
        let key = format!("{} {name}", self.resolve_context.site.url);
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
    fn steps(&self, files: Vec<StepFile>, problems: &mut Problems) -> Option<Vec<Step>> {
        let before = problems.errors();
        if files.is_empty() {
            let diagnostic = self.document.at_key("/steps", "SG0501", "there are no steps");
            self.document.report(problems, diagnostic);
        }
        let ids: Vec<String> = files.iter().map(|step| step.id.clone()).collect();
        let mut waiting = Vec::new();
        for (at, file) in files.into_iter().enumerate() {
            self.check_step(at, &file, &ids, problems);
            if let Some(step) = self.step(at, file, problems) {
                waiting.push((at, step));
            }
        }
        if problems.errors() > before {
            return None;
        }
        self.in_order(waiting, problems)
    }

    fn check_step(&self, at: usize, file: &StepFile, ids: &[String], problems: &mut Problems) {
        let pointer = format!("/steps/{at}");
        self.check_name(&format!("{pointer}/id"), &file.id, problems);
        if ids[..at].contains(&file.id) {
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

    fn in_order(&self, mut waiting: Vec<(usize, Step)>, problems: &mut Problems) -> Option<Vec<Step>> {
        let mut ordered: Vec<Step> = Vec::new();
        while !waiting.is_empty() {
            let met = |need: &String| ordered.iter().any(|step| step.id == *need);
            let Some(next) = waiting.iter().position(|(_, step)| step.needs.iter().all(met)) else {
                let ids: Vec<&str> = waiting.iter().map(|(_, step)| step.id.as_str()).collect();
                let place = format!("/steps/{}/needs", waiting[0].0);
                let message = format!("these steps wait for each other: {}", ids.join(", "));
                let diagnostic = self.document.at_key(&place, "SG0504", message);
                self.document.report(problems, diagnostic);
                return None;
            };
            ordered.push(waiting.remove(next).1);
        }
        Some(ordered)
    }

    /// Evaluates every expression once, with defaults and empty results, so
    /// that a typo is found now and not at night.
    fn check_expressions(&self, pipeline: &Pipeline, problems: &mut Problems) {
        let facts = RunFacts {
            run_id: String::new(),
            trigger: Trigger::Cron,
            scheduled_for: None,
            started_at: DateTime::<Utc>::UNIX_EPOCH,
            previous: None,
        };
        let resolve_context = self.resolve_context;
        let params = pipeline.params.sample();
        let mut context = Context::new(pipeline, &resolve_context.site, &params, &facts, Tz::UTC);
        let empty = StepResult::default();
        for step in &pipeline.steps {
            let pointer = self.pointer_of(&step.id);
            let judging = context.judging(&empty);
            self.check_condition(&pointer, "when", &step.when, context.value(), problems);
            self.check_condition(&pointer, "warn_when", &step.warn_when, &judging, problems);
            self.check_condition(&pointer, "fail_when", &step.fail_when, &judging, problems);
            self.check_arguments(&pointer, step, context.value(), pipeline, problems);
            context.add_step(&step.id, Status::Ok, &empty);
        }
        for (at, step) in self.jobs_of("on_drift").into_iter().zip(&pipeline.on_drift) {
            let pointer = format!("/on_drift/{at}");
            self.check_arguments(&pointer, step, context.value(), pipeline, problems);
        }
        context.ended(Status::Ok, None);
        self.check_hooks(context.value(), problems);
    }

    fn pointer_of(&self, id: &str) -> String {
        let steps = self.document.value().get("steps").and_then(Value::as_array);
        let at = steps.into_iter().flatten().position(|step| step["id"] == id);
        format!("/steps/{}", at.unwrap_or_default())
    }

    fn check_condition(
        &self,
        step: &str,
        key: &str,
        expression: &Option<String>,
        context: &Value,
        problems: &mut Problems,
    ) {
        let Some(expression) = expression else { return };
        let pointer = join(step, key);
        if has_template(expression) {
            let diagnostic = self
                .document
                .at(&pointer, "SG0304", format!("`{key}` is an expression by itself"))
                .help("write it without ${{ }}".to_owned());
            return self.document.report(problems, diagnostic);
        }
        match self.resolve_context.templates.evaluate(expression, context) {
            Ok(Value::Bool(_)) => {}
            Ok(other) => {
                let message = format!("`{key}` gives {other}, not true or false");
                let diagnostic = self.document.at(&pointer, "SG0304", message);
                self.document.report(problems, diagnostic);
            }
            Err(error) => {
                let diagnostic = error.at(self.document, &pointer);
                self.document.report(problems, diagnostic);
            }
        }
    }

    fn check_arguments(
        &self,
        step_pointer: &str,
        step: &Step,
        context: &Value,
        pipeline: &Pipeline,
        problems: &mut Problems,
    ) {
        let Arguments::Written(written) = &step.arguments else {
            return;
        };
        let pointer = join(step_pointer, "with");
        let rendered = match self.resolve_context.templates.render(&pointer, written, context) {
            Ok(rendered) => rendered,
            Err(errors) => {
                for (place, error) in errors {
                    let diagnostic = error.at(self.document, &place);
                    self.document.report(problems, diagnostic);
                }
                return;
            }
        };
        let parsed = JobSpec::parse(step.job, self.document, &pointer, &rendered, problems);
        if let Some(JobSpec::Repair(repair)) = parsed {
            self.check_sources(&pointer, &repair.from, pipeline, problems);
        }
    }

    fn check_sources(&self, pointer: &str, from: &[String], pipeline: &Pipeline, problems: &mut Problems) {
        let ids: Vec<&str> = pipeline.steps.iter().map(|step| step.id.as_str()).collect();
        let place = join(pointer, "from");
        let list = self.document.value().pointer(&place).is_some_and(Value::is_array);
        for (at, id) in from.iter().enumerate() {
            if ids.contains(&id.as_str()) {
                continue;
            }
            let place = match list {
                true => join(&place, &at.to_string()),
                false => place.clone(),
            };
            let message = format!("no step has the id `{id}`");
            let diagnostic = self.document.unknown(&place, "SG0503", message, id, &ids);
            self.document.report(problems, diagnostic);
        }
    }

    fn warn_about_unused_params(&self, pipeline: &Pipeline, problems: &mut Problems) {
        let mut without = self.document.value().clone();
        if let Some(map) = without.as_object_mut() {
            map.remove("params");
        }
        let text = without.to_string();
        let names: Vec<&str> = pipeline.params.iter().map(|(name, _)| name).collect();
        for name in &names {
            if text.contains(&format!("params.{name}")) {
                continue;
            }
            let pointer = join("/params", name);
            let diagnostic = self
                .document
                .at_key(&pointer, "SG0305", format!("the parameter `{name}` is never used"))
                .label("unused")
                .warning();
            self.document.report(problems, diagnostic);
        }
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

fn outputs(file: OutputsFile) -> Outputs {
    let built_in = Outputs::default();
    Outputs {
        prometheus: file.prometheus.unwrap_or(built_in.prometheus),
        elasticsearch: file.elasticsearch.unwrap_or_default().detail.unwrap_or_default(),
    }
}

/// Returns the pipeline of a name, or words about the nearest one.
///
/// # Errors
///
/// A message for a person.
pub fn find<'a>(pipelines: &'a [Arc<Pipeline>], name: &str) -> Result<&'a Arc<Pipeline>, String> {
    let found = pipelines.iter().find(|pipeline| pipeline.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = pipelines.iter().map(|p| p.name.as_str()).collect();
        match did_you_mean(name, &names) {
            Some(help) => format!("there is no pipeline `{name}` ({help})"),
            None => format!("there is no pipeline `{name}`"),
        }
    })
}

/// The parameters of several pipelines come as `--set name=value`.
///
/// # Errors
///
/// The text that has no `=`.
pub fn parse_overrides(written: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut overrides = BTreeMap::new();
    for text in written {
        let Some((name, value)) = text.split_once('=') else {
            return Err(format!("`{text}` is not of the form name=value"));
        };
        overrides.insert(name.trim().to_owned(), value.to_owned());
    }
    Ok(overrides)
}

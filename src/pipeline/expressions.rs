//! The check of expressions when a file is loaded: every expression is evaluated
//! once, with the defaults of parameters and empty results, so that a typo is found
//! now and not at night. A result has the fields that its job sets, so that a
//! condition on anything else is found too.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono_tz::Tz;
use serde_json::Value;

use super::context::{Context, RunFacts};
use super::reactions::{ALARM_KEYS, HOOK_KEYS};
use super::resolver::Resolver;
use super::results::sample_result;
use super::{Arguments, JobSpec, Params, Pipeline, Step};
use crate::report::Status;
use crate::yaml::{Problems, has_template, join};

/// A name and its labels.
type Named<'a> = (&'a str, &'a BTreeMap<String, String>);

impl Resolver<'_> {
    /// Checks every expression of the steps, which come with their places, of the
    /// jobs below `on_drift`, which may name steps by their ids, and of the hooks.
    pub(super) fn check_expressions(
        &self,
        named: Named<'_>,
        params: &Params,
        steps: &[(usize, Step)],
        (on_drift, ids): (&[Step], &[String]),
        problems: &mut Problems,
    ) {
        let facts = RunFacts::sample();
        let mut context = Context::new(named, &self.context.site, &params.sample(), &facts, Tz::UTC);
        for (at, step) in steps {
            let pointer = format!("/steps/{at}");
            let spec = self.check_arguments(&pointer, step, context.value(), problems);
            self.check_sources(&pointer, spec.as_ref(), ids, problems);
            let result = sample_result(step.job, spec.as_ref(), self.context.entities.as_deref());
            let judging = context.judging(result.clone());
            self.check_condition(&pointer, "when", &step.when, context.value(), problems);
            self.check_condition(&pointer, "warn_when", &step.warn_when, &judging, problems);
            self.check_condition(&pointer, "fail_when", &step.fail_when, &judging, problems);
            context.add_step(&step.id, Status::Ok, result);
        }
        for (at, step) in self.jobs_of("on_drift").into_iter().zip(on_drift) {
            let pointer = format!("/on_drift/{at}");
            let spec = self.check_arguments(&pointer, step, context.value(), problems);
            self.check_sources(&pointer, spec.as_ref(), ids, problems);
        }
        context.ended(Status::Ok, None);
        self.check_hooks(HOOK_KEYS, context.value(), problems);
        self.check_report_file(context.value(), problems);
        context.stalled("stalled", "", Duration::ZERO);
        self.check_hooks(ALARM_KEYS, context.value(), problems);
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
        match self.context.templates.evaluate(expression, context) {
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

    /// Renders and checks the arguments of a step, and returns as much of them as
    /// can be read.
    fn check_arguments(
        &self,
        step_pointer: &str,
        step: &Step,
        context: &Value,
        problems: &mut Problems,
    ) -> Option<JobSpec> {
        let Arguments::Written(Value::Object(written)) = &step.arguments else {
            return None;
        };
        let pointer = join(step_pointer, "with");
        let mut rendered = serde_json::Map::new();
        for (name, value) in written {
            let place = join(&pointer, name);
            match self.context.templates.render(&place, value, context) {
                Ok(value) => drop(rendered.insert(name.clone(), value)),
                Err(errors) => {
                    for (place, error) in errors {
                        let diagnostic = error.at(self.document, &place);
                        self.document.report(problems, diagnostic);
                    }
                }
            }
        }
        let spec = JobSpec::parse_fitting(step.job, self.document, &pointer, &Value::Object(rendered), problems)?;
        self.check_entities(&pointer, &spec, problems);
        Some(spec)
    }

    fn check_sources(&self, step: &str, spec: Option<&JobSpec>, ids: &[String], problems: &mut Problems) {
        let Some(JobSpec::Repair(repair)) = spec else { return };
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        let place = join(&join(step, "with"), "from");
        for (at, id) in repair.from.iter().enumerate() {
            if names.contains(&id.as_str()) {
                continue;
            }
            let message = format!("no step has the id `{id}`");
            let entry = self.document.entry(&place, at);
            let diagnostic = self.document.unknown(&entry, "SG0503", message, id, &names);
            self.document.report(problems, diagnostic);
        }
    }

    /// Warns about parameters that no expression names.
    pub(super) fn warn_about_unused_params(&self, pipeline: &Pipeline, problems: &mut Problems) {
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

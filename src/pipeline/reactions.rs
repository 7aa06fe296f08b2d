//! What a pipeline file says about the end of a run: jobs after drift, hooks, and
//! the blackouts that it keeps to.

use serde_json::Value;

use super::file::ReactionFile;
use super::resolver::{Resolver, known_job, object};
use super::{Arguments, Blackout, Hook, HookTarget, Hooks, JobSpec, Start, Step};
use crate::yaml::{Document, Problems, did_you_mean};

/// The keys under which hooks of runs stand.
pub(super) const HOOK_KEYS: &[&str] = &["on_drift", "on_error", "on_success", "always"];
/// The keys under which hooks of alarms stand.
pub(super) const ALARM_KEYS: &[&str] = &["on_stalled", "on_recovered"];

impl Resolver<'_> {
    /// Resolves `on_drift`: its jobs and its hooks.
    pub(super) fn reactions(
        &self,
        files: Vec<Option<ReactionFile>>,
        problems: &mut Problems,
    ) -> (Vec<Step>, Vec<Hook>) {
        let (mut steps, mut hooks) = (Vec::new(), Vec::new());
        for (at, file) in files.into_iter().enumerate() {
            let Some(file) = file else { continue };
            match &file.job {
                Some(_) => steps.extend(self.reaction(at, steps.len(), file, problems)),
                None => hooks.extend(self.hook("on_drift", at, file, problems)),
            }
        }
        (steps, hooks)
    }

    /// Resolves one list of hooks.
    pub(super) fn hooks(&self, key: &str, files: Vec<Option<ReactionFile>>, problems: &mut Problems) -> Vec<Hook> {
        files.into_iter().enumerate().filter_map(|(at, file)| self.hook(key, at, file?, problems)).collect()
    }

    fn reaction(&self, at: usize, before: usize, file: ReactionFile, problems: &mut Problems) -> Option<Step> {
        let pointer = format!("/on_drift/{at}");
        if file.notify.is_some() || file.ping.is_some() || file.message.is_some() {
            self.one_thing(&pointer, problems);
            return None;
        }
        let job = known_job(self.document, &format!("{pointer}/job"), &file.job.unwrap_or_default(), problems)?;
        let id = match before {
            0 => "on_drift".to_owned(),
            before => format!("on_drift-{}", before + 1),
        };
        Some(Step {
            id,
            job,
            needs: Vec::new(),
            when: None,
            arguments: Arguments::Written(object(file.with)),
            timeout: None,
            warn_when: None,
            fail_when: JobSpec::default_fail_when(job).map(str::to_owned),
        })
    }

    fn hook(&self, key: &str, at: usize, file: ReactionFile, problems: &mut Problems) -> Option<Hook> {
        let pointer = format!("/{key}/{at}");
        let target = match (file.notify, file.ping) {
            (Some(name), None) => {
                self.check_notifier(&format!("{pointer}/notify"), &name, problems);
                HookTarget::Notify(name)
            }
            (None, Some(address)) => HookTarget::Ping(address),
            _ => {
                self.one_thing(&pointer, problems);
                return None;
            }
        };
        Some(Hook { target, message: file.message, every: file.every })
    }

    fn one_thing(&self, pointer: &str, problems: &mut Problems) {
        let diagnostic = self
            .document
            .at(pointer, "SG0208", "an entry does one thing")
            .help("give `notify: NAME` or `ping: URL`, or below `on_drift` also `job: repair`".to_owned());
        self.document.report(problems, diagnostic);
    }

    fn check_notifier(&self, pointer: &str, name: &str, problems: &mut Problems) {
        let known: Vec<&str> = self.context.notifiers.iter().map(String::as_str).collect();
        if known.contains(&name) {
            return;
        }
        let message = format!("there is no notifier `{name}`");
        let help = did_you_mean(name, &known).unwrap_or_else(|| "add it under `notifiers` in config.yaml".to_owned());
        let diagnostic = self.document.at(pointer, "SG0605", message).label("unknown notifier").help(help);
        self.document.report(problems, diagnostic);
    }

    /// Resolves the names of blackouts.
    pub(super) fn blackouts(&self, names: &[String], problems: &mut Problems) -> Vec<Blackout> {
        let known = &self.context.blackouts;
        let mut found = Vec::new();
        for (at, name) in names.iter().enumerate() {
            if let Some(blackout) = known.get(name) {
                found.push(blackout.clone());
                continue;
            }
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            let pointer = self.document.entry("/blackout", at);
            let help =
                did_you_mean(name, &names).unwrap_or_else(|| "add it under `blackouts` in config.yaml".to_owned());
            let diagnostic = self
                .document
                .at(&pointer, "SG0606", format!("there is no blackout `{name}`"))
                .label("unknown blackout")
                .help(help);
            self.document.report(problems, diagnostic);
        }
        found
    }

    /// The places of the jobs in a list.
    pub(super) fn jobs_of(&self, key: &str) -> Vec<usize> {
        let entries = self.document.value().get(key).and_then(Value::as_array);
        let entries = entries.into_iter().flatten().enumerate();
        entries.filter(|(_, entry)| entry.get("job").is_some()).map(|(at, _)| at).collect()
    }

    /// Renders what hooks say once, so that a typo is found now and not at night.
    pub(super) fn check_hooks(&self, keys: &[&str], context: &Value, problems: &mut Problems) {
        for key in keys {
            let entries = self.document.value().get(key).and_then(Value::as_array);
            for (at, entry) in entries.into_iter().flatten().enumerate() {
                for part in ["message", "ping"] {
                    let Some(written) = entry.get(part) else { continue };
                    let pointer = format!("/{key}/{at}/{part}");
                    check_blocks(self.document, &pointer, written.as_str().unwrap_or_default(), problems);
                    let rendered = self.context.templates.render(&pointer, written, context);
                    for (place, error) in rendered.err().into_iter().flatten() {
                        self.document.report(problems, error.at(self.document, &place));
                    }
                }
            }
        }
    }

    /// Renders the path of the report once.
    pub(super) fn check_report_file(&self, context: &Value, problems: &mut Problems) {
        let pointer = "/outputs/file/path";
        let Some(path) = self.document.value().pointer(pointer) else { return };
        let rendered = self.context.templates.render(pointer, path, context);
        for (place, error) in rendered.err().into_iter().flatten() {
            self.document.report(problems, error.at(self.document, &place));
        }
    }

    /// Reports hooks of an alarm that nothing raises.
    pub(super) fn check_alarms(&self, start: &Start, hooks: &Hooks, problems: &mut Problems) {
        let is_raised = match start {
            Start::Continuous(_) => true,
            Start::Scheduled(schedule) => schedule.overdue_after.is_some(),
            Start::Manual => false,
        };
        let given = [("on_stalled", &hooks.on_stalled), ("on_recovered", &hooks.on_recovered)];
        for (key, _) in given.into_iter().filter(|(_, hooks)| !hooks.is_empty() && !is_raised) {
            let message = format!("`{key}` never fires");
            let help = "give `schedule` an `overdue_after`: the longest time without a run that worked";
            let diagnostic = self.document.at_key(&format!("/{key}"), "SG0213", message).help(help.to_owned());
            self.document.report(problems, diagnostic);
        }
    }
}

/// Reports a block in a text: it would be sent as it is written.
pub fn check_blocks(document: &Document, pointer: &str, text: &str, problems: &mut Problems) {
    let block = ["{%", "{#"].into_iter().find_map(|open| Some((open, text.find(open)?)));
    if let Some((open, at)) = block {
        let message = format!("`{open}` is not rendered");
        let diagnostic = document.within(pointer, at..at + open.len(), "SG0306", message);
        let help = "a text holds expressions, ${{ .. }}, and no blocks or comments";
        document.report(problems, diagnostic.label("a block").help(help.to_owned()));
    }
}

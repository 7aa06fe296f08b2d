//! The check of `tests` when a file is loaded: they name steps, parameters and expect
//! something that can be seen.

use serde_json::Value;

use super::Pipeline;
use super::rehearsal::tests_of;
use super::resolver::Resolver;
use super::test_file::TestFile;
use crate::yaml::{Problems, join};

impl Resolver<'_> {
    /// Checks every test of the file.
    pub(super) fn check_tests(&self, pipeline: &Pipeline, problems: &mut Problems) {
        for (at, test) in tests_of(self.document).into_iter().enumerate() {
            let pointer = format!("/tests/{at}");
            // One that does not fit its shape has been reported.
            let Some(test) = test else { continue };
            self.check_test_steps(&pointer, pipeline, problems);
            self.check_test_params(&pointer, &test, pipeline, problems);
            self.check_expectations(&pointer, &test, pipeline, problems);
        }
    }

    fn check_test_steps(&self, pointer: &str, pipeline: &Pipeline, problems: &mut Problems) {
        let steps = pipeline.steps.iter().chain(&pipeline.on_drift);
        let ids: Vec<&str> = steps.map(|step| step.id.as_str()).collect();
        for part in ["results", "expect/steps"] {
            let part = format!("{pointer}/{part}");
            let named = self.document.value().pointer(&part).and_then(Value::as_object);
            for id in named.into_iter().flat_map(|named| named.keys()).filter(|id| !ids.contains(&id.as_str())) {
                let message = format!("no step has the id `{id}`");
                let place = join(&part, id);
                let diagnostic = self.document.at_key(&place, "SG0503", message).label("unknown step");
                let help = crate::yaml::did_you_mean(id, &ids);
                self.document.report(problems, diagnostic.help(help));
            }
        }
    }

    fn check_test_params(&self, pointer: &str, test: &TestFile, pipeline: &Pipeline, problems: &mut Problems) {
        for error in pipeline.params.resolve(&test.overrides()).err().into_iter().flatten() {
            let place = join(&join(pointer, "set"), &error.name);
            let diagnostic =
                self.document.at_key(&place, "SG0204", format!("parameter `{}`: {}", error.name, error.reason));
            self.document.report(problems, diagnostic);
        }
    }

    fn check_expectations(&self, pointer: &str, test: &TestFile, pipeline: &Pipeline, problems: &mut Problems) {
        let expect = join(pointer, "expect");
        if test.expect.next_runs.is_some() && pipeline.schedule().is_none() {
            let message = "a pipeline without a schedule has no next runs";
            let diagnostic = self.document.at_key(&join(&expect, "next_runs"), "SG0903", message);
            self.document.report(problems, diagnostic);
        }
        if test.expect.next_runs.is_none() && !test.expect.needs_run() {
            let diagnostic = self
                .document
                .at(&expect, "SG0903", "the test expects nothing")
                .help("expect one of: next_runs, status, reason, exit_code, steps, actions, messages".to_owned());
            self.document.report(problems, diagnostic);
        }
    }
}

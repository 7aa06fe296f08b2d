//! What a pipeline file says that is rendered when it is loaded: labels, defaults of
//! parameters, and the name of its index. They must be known before there is a run, so
//! their expressions see the site, the name of the pipeline and `env()` only; labels do not
//! see each other, all others see the labels.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Param;
use super::resolver::Resolver;
use crate::yaml::{Problems, has_template, join};

impl Resolver<'_> {
    /// Returns what expressions see before there is a run. While labels are rendered there
    /// are none.
    pub(super) fn known_before_run(&self, name: &str, labels: Option<&BTreeMap<String, String>>) -> Value {
        let site = &self.context.site;
        let mut known = json!({ "pipeline": { "name": name }, "site": { "name": site.name, "url": site.url } });
        if let Some(labels) = labels {
            known["pipeline"]["labels"] = json!(labels);
        }
        known
    }

    /// Renders the labels; one with a problem is left as it is written.
    pub(super) fn render_labels(&self, name: &str, labels: &mut BTreeMap<String, String>, problems: &mut Problems) {
        let known = self.known_before_run(name, None);
        for (label, text) in labels {
            self.render_known(&join("/labels", label), text, &known, problems);
        }
    }

    /// Renders a text that stays one.
    pub(super) fn render_known(&self, pointer: &str, text: &mut String, known: &Value, problems: &mut Problems) {
        if !has_template(text) {
            return;
        }
        match self.context.templates.render_text(text, known) {
            Ok(Value::String(rendered)) => *text = rendered,
            Ok(Value::Null) => {
                let diagnostic = self.document.at(pointer, "SG0303", "the expression is null, and this is a text");
                self.document.report(problems, diagnostic);
            }
            Ok(other) => *text = other.to_string(),
            Err(error) => self.document.report(problems, error.at(self.document, pointer)),
        }
    }

    /// Renders the defaults of parameters; in the place of one with a problem stands a value
    /// that fits, so that nothing else is reported about it.
    pub(super) fn render_defaults(&self, known: &Value, params: &mut BTreeMap<String, Param>, problems: &mut Problems) {
        for (name, param) in params {
            let Some(default) = &param.default else { continue };
            let pointer = join(&join("/params", name), "default");
            match self.context.templates.render(&pointer, default, known) {
                Ok(rendered) => param.default = Some(rendered),
                Err(errors) => {
                    for (place, error) in errors {
                        self.document.report(problems, error.at(self.document, &place));
                    }
                    param.default = Some(param.example());
                }
            }
        }
    }
}

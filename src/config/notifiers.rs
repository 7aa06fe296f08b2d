//! Whom pipelines may notify: `notifiers` of `config.yaml`.

use std::collections::BTreeMap;

use super::file::NotifierFile;
use super::load::Resolver;
use crate::pipeline::{check_blocks, sample_hook_context};
use crate::report::{Mail, Notifier, NotifierKind, Webhook};
use crate::yaml::{Problems, Templates, join};

impl Resolver<'_> {
    /// Resolves the notifiers; one with a problem is left out.
    pub(super) fn notifiers(
        &self,
        files: BTreeMap<String, NotifierFile>,
        problems: &mut Problems,
    ) -> BTreeMap<String, Notifier> {
        let resolve = |(name, file): (String, NotifierFile)| {
            let at = join("/notifiers", &name);
            Some((name, self.notifier(&at, file, problems)?))
        };
        files.into_iter().filter_map(resolve).collect()
    }

    fn notifier(&self, at: &str, file: NotifierFile, problems: &mut Problems) -> Option<Notifier> {
        let url = self.secret(&format!("{at}/url"), &file.url, problems);
        let before = problems.errors();
        self.refuse_without_effect(at, &file, problems);
        let url = url?;
        let kind = match file.kind.as_str() {
            "email" => NotifierKind::Email(Box::new(self.mail(at, url.expose(), &file, problems)?)),
            kind => {
                // The address is often a secret, so it is not repeated.
                if !reqwest::Url::parse(url.expose()).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
                    let message = "the address of the notifier is not an http or https URL";
                    self.document.report(problems, self.document.at_key(&format!("{at}/url"), "SG0602", message));
                    return None;
                }
                let url = url.expose().to_owned();
                self.check_body(at, file.body.as_deref(), problems);
                match kind {
                    "slack" => NotifierKind::Slack(url),
                    _ => NotifierKind::Webhook(Webhook { url, method: file.method, body: file.body }),
                }
            }
        };
        (problems.errors() == before).then_some(Notifier { kind, dedupe: file.dedupe })
    }

    /// Reports keys of another type of notifier.
    fn refuse_without_effect(&self, at: &str, file: &NotifierFile, problems: &mut Problems) {
        let (is_webhook, is_mail) = (file.kind == "webhook", file.kind == "email");
        let given = [
            ("method", file.method.is_some() && !is_webhook),
            ("body", file.body.is_some() && !is_webhook),
            ("from", file.from.is_some() && !is_mail),
            ("to", !file.to.is_empty() && !is_mail),
        ];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            let message = format!("a notifier of type `{}` has no `{key}`", file.kind);
            let diagnostic = self.document.at_key(&join(at, key), "SG0201", message).label("no effect");
            self.document.report(problems, diagnostic);
        }
    }

    fn mail(&self, at: &str, url: &str, file: &NotifierFile, problems: &mut Problems) -> Option<Mail> {
        let (Some(from), false) = (&file.from, file.to.is_empty()) else {
            let message = "an e-mail needs `from` and `to`";
            let help = "from: sgcache@studio.example, to: [td@studio.example]";
            let diagnostic = self.document.at(at, "SG0203", message).help(help.to_owned());
            self.document.report(problems, diagnostic);
            return None;
        };
        Mail::new(url, from, &file.to)
            .map_err(|(key, message)| {
                self.document.report(problems, self.document.at_key(&join(at, key), "SG0602", message));
            })
            .ok()
    }

    /// Renders the body once, so that a typo is found now and not at night.
    fn check_body(&self, at: &str, body: Option<&str>, problems: &mut Problems) {
        let Some(body) = body else { return };
        check_blocks(self.document, &join(at, "body"), body, problems);
        let templates = Templates::new(self.environment);
        if let Err(error) = templates.render_text(body, &sample_hook_context()) {
            self.document.report(problems, error.at(self.document, &join(at, "body")));
        }
    }
}

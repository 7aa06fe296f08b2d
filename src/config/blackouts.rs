//! Whom pipelines may notify, and when they stay quiet: `notifiers` and
//! `blackouts` of `config.yaml`.

use std::collections::BTreeMap;

use chrono_tz::Tz;

use super::file::NotifierFile;
use super::load::Resolver;
use crate::pipeline::{Blackout, BlackoutFile, Schedule};
use crate::report::{Notifier, NotifierKind};
use crate::yaml::{Problems, join};

impl Resolver<'_> {
    /// Resolves the notifiers; one with a problem is left out.
    pub(super) fn notifiers(
        &self,
        files: BTreeMap<String, NotifierFile>,
        problems: &mut Problems,
    ) -> BTreeMap<String, Notifier> {
        let mut notifiers = BTreeMap::new();
        for (name, file) in files {
            let at = format!("{}/url", join("/notifiers", &name));
            let Some(url) = self.secret(&at, &file.url, problems) else { continue };
            // The address is often a secret, so it is not repeated.
            if !reqwest::Url::parse(url.expose()).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
                let message = "the address of the notifier is not an http or https URL";
                self.document.report(problems, self.document.at_key(&at, "SG0602", message));
                continue;
            }
            let kind = if file.kind == "slack" { NotifierKind::Slack } else { NotifierKind::Webhook };
            notifiers.insert(name, Notifier { kind, url: url.expose().to_owned() });
        }
        notifiers
    }

    /// Resolves the blackouts; one with a problem is left out.
    pub(super) fn blackouts(
        &self,
        files: BTreeMap<String, BlackoutFile>,
        timezone: Option<Tz>,
        problems: &mut Problems,
    ) -> BTreeMap<String, Blackout> {
        let mut blackouts = BTreeMap::new();
        for (name, file) in files {
            let at = join("/blackouts", &name);
            let zone = match &file.timezone {
                Some(written) => self.zone(&format!("{at}/timezone"), Some(written), problems),
                None => timezone,
            };
            match Schedule::new(file.cron, false, zone.unwrap_or(Tz::UTC)) {
                Ok(begins) => {
                    blackouts
                        .insert(name.clone(), Blackout { name, begins, duration: file.duration, action: file.action });
                }
                Err((_, reason)) => {
                    let diagnostic = self
                        .document
                        .at(&format!("{at}/cron"), "SG0401", format!("the cron line {reason}"))
                        .label("not a cron line")
                        .help("for example \"0 10 * * MON-FRI\": minute, hour, day, month, weekday".to_owned());
                    self.document.report(problems, diagnostic);
                }
            }
        }
        blackouts
    }
}

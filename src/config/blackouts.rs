//! When pipelines stay quiet: `blackouts` of `config.yaml`.

use std::collections::BTreeMap;

use chrono_tz::Tz;

use super::load::Resolver;
use crate::pipeline::{Blackout, BlackoutFile, Schedule};
use crate::yaml::{Problems, join};

impl Resolver<'_> {
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

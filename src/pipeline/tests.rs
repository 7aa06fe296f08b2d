//! Tests of pipelines, one file per concern.

mod daylight_saving;
mod forecasting;
mod keys;
mod linting;
mod loading;
mod planning;
mod rehearsing;
mod rendering;
mod running;
mod serving;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Blackout, BlackoutAction, Defaults, Pipeline, ResolveContext, Schedule, Site, resolve};
use crate::yaml::{Document, Problems, Templates};

fn resolve_context() -> ResolveContext {
    ResolveContext {
        timezone: chrono_tz::Europe::Paris,
        defaults: Defaults::default(),
        site: Site { name: "studio".to_owned(), url: "https://studio.example".to_owned() },
        blackouts: [("dailies".to_owned(), dailies())].into(),
        notifiers: ["td-slack".to_owned()].into(),
        entities: None,
        templates: Templates::new(&BTreeMap::new()),
    }
}

/// Ten to half past eleven on working days, in Paris.
fn dailies() -> Blackout {
    let begins = Schedule::new(vec!["0 10 * * MON-FRI".into()], false, chrono_tz::Europe::Paris).expect("a schedule");
    let duration = std::time::Duration::from_secs(90 * 60);
    Blackout { name: "dailies".to_owned(), begins, duration, action: BlackoutAction::Defer }
}

fn resolved(text: &str) -> Result<Pipeline, String> {
    let document = Document::yaml("p.yaml", text.as_bytes()).map_err(|p| p.to_string())?;
    let mut problems = Problems::new();
    match resolve(&document, &resolve_context(), &mut problems) {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ => Err(problems.to_string()),
    }
}

fn pipeline(text: &str) -> Arc<Pipeline> {
    Arc::new(resolved(text).expect("a valid file"))
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

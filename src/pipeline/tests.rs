//! Tests of pipelines, one file per concern.

mod loading;
mod planning;
mod running;
mod serving;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Defaults, Pipeline, Site, Surroundings, resolve};
use crate::yaml::{Document, Problems, Templates};

fn surroundings() -> Surroundings {
    Surroundings {
        timezone: chrono_tz::Europe::Paris,
        defaults: Defaults::default(),
        site: Site { name: "studio".to_owned(), url: "https://studio.example".to_owned() },
        templates: Templates::new(&BTreeMap::new()),
    }
}

fn resolved(text: &str) -> Result<Pipeline, String> {
    let document = Document::yaml("p.yaml", text.as_bytes()).map_err(|p| p.to_string())?;
    let mut problems = Problems::new();
    match resolve(&document, &surroundings(), &mut problems) {
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

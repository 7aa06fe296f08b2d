//! `validateData`: field values of chosen entities.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bound::stale_ratio_upper95;
use super::names::{TargetWindow, WrongNames};
use super::repair::Suspect;
use super::sample::Sample;
use super::window::Window;
use super::{Result, TypeFindings, ValidateError, Validator};
use crate::entity_config::TypeLayout;
use crate::schema::Schema;

/// What a data validation compares.
#[derive(Clone, Debug)]
pub struct DataCheck {
    /// Which entities.
    pub sample: Sample,
    /// Which fields; `None` is all that are cached.
    pub fields: Option<Vec<String>>,
    /// Which of these are left out.
    pub ignored: Vec<String>,
    /// Whether what differs is repaired.
    pub repair: bool,
    /// The schema that filters and orders are checked against.
    pub schema: Arc<Schema>,
}

/// What a first look showed.
struct Looked {
    /// Entities that differ.
    suspects: Vec<Suspect>,
    /// Entities that changed meanwhile.
    touched: BTreeSet<i64>,
    /// Targets of links whose names differ.
    wrong_names: WrongNames,
}

impl DataCheck {
    /// Returns the fields of a type to compare; `None` is all that are cached.
    fn fields_of(&self, layout: &TypeLayout) -> Option<Vec<String>> {
        if self.ignored.is_empty() {
            return self.fields.clone();
        }
        let fields = self.fields.clone().unwrap_or_else(|| layout.field_names());
        Some(fields.into_iter().filter(|name| !self.ignored.contains(name)).collect())
    }
}

impl Validator {
    pub(super) async fn check_type(&self, layout: &TypeLayout, check: &DataCheck) -> Result<TypeFindings> {
        if let Some(fields) = &check.fields {
            check_fields(layout, fields)?;
        }
        if let Some(problem) = self.not_ready(layout).await? {
            return Ok(TypeFindings::inconclusive(problem));
        }
        let only = check.fields_of(layout);
        let only = only.as_deref();
        let mut findings = TypeFindings::default();
        let mut ids = self.choose(layout, &check.schema, &check.sample).await?;
        let (mut suspects, mut wrong_names) = (Vec::new(), WrongNames::new());
        // What changed during the first look gets a second one.
        for last in [false, true] {
            let mut looked = self.look(layout, only, &ids).await?;
            findings.result.checked += (ids.len() - looked.touched.len()) as u64;
            suspects.append(&mut looked.suspects);
            wrong_names.append(&mut looked.wrong_names);
            ids = looked.touched;
            if ids.is_empty() || last {
                break;
            }
            findings.result.touched = ids.len() as u64;
        }
        findings.result.unverifiable = ids.len() as u64;
        self.confirm_and_repair(layout, only, suspects, check.repair, &mut findings).await?;
        self.confirm_names(layout, only, wrong_names, check.repair, &mut findings).await?;
        let drifted = findings.result.missing + findings.result.extra + findings.result.differs;
        if check.sample.is_random() {
            findings.result.stale_ratio_upper95 = stale_ratio_upper95(drifted, findings.result.checked);
        }
        Ok(findings)
    }

    /// Compares entities once.
    async fn look(&self, layout: &TypeLayout, only: Option<&[String]>, ids: &BTreeSet<i64>) -> Result<Looked> {
        let window = Window::open(&self.state, &layout.entity_type).await?;
        let targets = TargetWindow::open(&self.state, layout).await?;
        let wanted: Vec<i64> = ids.iter().copied().collect();
        let sides = self.both_sides(layout, &wanted).await?;
        self.past_polls(1).await?;
        let touched: BTreeSet<i64> = window.touched(&self.state).await?.intersection(ids).copied().collect();
        let untouched: BTreeSet<i64> = ids.difference(&touched).copied().collect();
        let mut wrong_names = sides.wrong_names(layout, only, &untouched);
        targets.drop_touched(&self.state, &mut wrong_names).await?;
        Ok(Looked { suspects: sides.suspects(layout, only, &untouched), touched, wrong_names })
    }
}

fn check_fields(layout: &TypeLayout, fields: &[String]) -> Result<()> {
    let missing = fields.iter().find(|name| !matches!(name.as_str(), "id" | "type") && layout.field(name).is_none());
    let Some(missing) = missing else { return Ok(()) };
    let known: Vec<_> = layout.fields.iter().map(|field| field.name.as_str()).collect();
    let hint = crate::yaml::did_you_mean(missing, &known).map(|hint| format!("; {hint}")).unwrap_or_default();
    Err(ValidateError::Selection(format!("{}.{missing} is not cached{hint}", layout.entity_type)))
}

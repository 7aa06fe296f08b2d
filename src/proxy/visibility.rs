//! What the scope of a caller hides, and where it would show.
//!
//! A caller's answer, its headers and the reason of a pass depend only on what the caller
//! may see. Hidden are:
//!
//! - types and fields: they may not be returned, filtered, sorted or summed up, nor lie on
//!   a path, whether or not they are cached or exist;
//! - names of links: the name of an entity is the value of one of its fields
//!   ([`display_name_field`]), so a link shows it only to those who may read that field.
//!   Filters and orders on a link look at the name, too;
//! - other projects: their rows are left out by an added condition, and links that may
//!   lead to entities of other projects are not looked at.
//!
//! What touches something hidden goes to the site, which knows the permissions of the
//! caller.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::catalogue::Catalogue;
use super::decide::Scope;
use super::question::{Question, Reader};
use super::reason::{Pass, Reason};
use super::settings::Limits;
use crate::entity::{DataType, EntityRef, EntityType, Shape};
use crate::filter::{FieldPath, Filter, Leaf, RawFilter, Test};
use crate::schema::display_name_field;

/// Checks that a type may be read.
pub(super) fn check_type(scope: &Scope, entity_type: &EntityType) -> Result<(), Pass> {
    match scope {
        Scope::Limited(limits) if !limits.sees_type(entity_type) => Err(hidden(format!("`{entity_type}`"))),
        _ => Ok(()),
    }
}

/// Checks the fields of a path as it is written: `field`, or `link.Type.field`.
pub(super) fn check_path(scope: &Scope, entity_type: &EntityType, text: &str) -> Result<(), Pass> {
    let Scope::Limited(limits) = scope else { return Ok(()) };
    let mut owner = entity_type.clone();
    for (index, part) in text.split('.').enumerate() {
        if index % 2 == 1 {
            owner = EntityType::new(part);
        } else if !limits.sees_field(&owner, part) {
            return Err(hidden(format!("`{owner}.{part}`")));
        }
    }
    check_type(scope, &owner)
}

/// Checks every path of a filter.
pub(super) fn check_filter(scope: &Scope, entity_type: &EntityType, raw: &RawFilter) -> Result<(), Pass> {
    match raw {
        RawFilter::Group { conditions, .. } => {
            conditions.iter().try_for_each(|raw| check_filter(scope, entity_type, raw))
        }
        RawFilter::Leaf(leaf) => check_path(scope, entity_type, &leaf.path),
    }
}

/// Applies the scope of a caller to a question.
pub(super) fn limit(question: Question, scope: &Scope, catalogue: &Catalogue) -> Result<Question, Pass> {
    match scope {
        Scope::Full => Ok(question),
        Scope::Nothing(pass) => Err(pass.clone()),
        Scope::Limited(limits) => {
            let root = &question.query.entity_type;
            let depends_on = question.needs.rows.iter().chain(&question.needs.names);
            depends_on.into_iter().try_for_each(|ty| check_type(scope, ty))?;
            for path in &question.needs.paths {
                check_path(scope, root, &path.to_string())?;
                check_names(limits, root, path, catalogue)?;
            }
            limit_projects(question, scope, limits, catalogue)
        }
    }
}

/// Checks that the names of whatever a link may lead to may be seen.
fn check_names(limits: &Limits, root: &EntityType, path: &FieldPath, catalogue: &Catalogue) -> Result<(), Pass> {
    if !is_link(path) {
        return Ok(());
    }
    let owner = path.hops.last().map_or(root, |hop| &hop.entity_type);
    let valid = catalogue.schema.field(owner, &path.field).map(|field| &field.valid_types);
    let nameless = match valid.filter(|valid| !valid.is_empty()) {
        Some(valid) => valid.iter().find(|ty| !sees_names(limits, ty)),
        // Without a list, a link may lead to anything.
        None => catalogue.schema.types.keys().find(|ty| !sees_names(limits, ty)),
    };
    match nameless {
        Some(ty) => Err(hidden(format!("the names of `{ty}` in `{path}`"))),
        None => Ok(()),
    }
}

/// Tells whether the names of entities of a type may be seen.
fn sees_names(limits: &Limits, entity_type: &EntityType) -> bool {
    // The site adds to the field for these, and the whole text is another field.
    let composed = matches!(entity_type.as_str(), "ApiUser" | "Delivery");
    limits.sees_field(entity_type, display_name_field(entity_type))
        && (!composed || limits.sees_field(entity_type, "cached_display_name"))
}

/// Leaves out the rows of other projects.
fn limit_projects(
    mut question: Question,
    scope: &Scope,
    limits: &Limits,
    catalogue: &Catalogue,
) -> Result<Question, Pass> {
    let Some(projects) = &limits.projects else { return Ok(question) };
    if let Some(path) = question.needs.paths.iter().find(|path| !stays_in_project(path)) {
        return Err(hidden(format!("entities of other projects, which `{path}` may show")));
    }
    let root = question.query.entity_type.clone();
    let filter = project_filter(&root, projects, scope, catalogue)?;
    question.query.filter = filter.and(question.query.filter);
    Ok(question)
}

/// Tells whether a path shows nothing but the row itself and its project.
fn stays_in_project(path: &FieldPath) -> bool {
    match path.hops.as_slice() {
        [] => !is_link(path) || path.field == "project",
        [hop] => hop.field == "project" && hop.entity_type == "Project" && !is_link(path),
        _ => false,
    }
}

fn is_link(path: &FieldPath) -> bool {
    matches!(path.data_type.shape(), Shape::Link | Shape::Links)
}

fn project_filter(
    root: &EntityType,
    projects: &BTreeSet<i64>,
    scope: &Scope,
    catalogue: &Catalogue,
) -> Result<Filter, Pass> {
    if *root == "Project" {
        return Ok(Filter::ids(projects.iter().copied()));
    }
    let Some(path) = catalogue.schema.path(root, "project").filter(|path| path.data_type == DataType::Entity) else {
        return Err(Pass::new(Reason::Scope, format!("`{root}` belongs to no project")));
    };
    Reader::new(root, scope, catalogue)?.cached(&path)?;
    let targets = projects.iter().map(|id| EntityRef::new("Project", *id)).collect();
    Ok(Filter::Leaf(Leaf { path, negated: false, test: Test::LinkTo(targets) }))
}

fn hidden(what: impl Display) -> Pass {
    Pass::new(Reason::Scope, format!("the scope of the caller hides {what}"))
}

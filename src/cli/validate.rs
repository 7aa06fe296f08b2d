//! `sgcache pipelines validate`: everything that is wrong with `config.yaml`, the
//! entity configs and the pipelines, in one pass. Nothing is asked of the site,
//! unless that is wanted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::Utc;

use super::Failure;
use super::context::{client, environment};
use super::diagnostic_formats::{self, Format};
use super::engine::resolve_context;
use super::pipeline_files::{catalog, last_schema, usual_durations};
use crate::config::{self, Config, Readable};
use crate::entity_config::{EntityConfigFile, LayoutProblem, MalformedConfig, TypeLayout};
use crate::entity_config_files::{self, EntityConfigError};
use crate::metrics::Metrics;
use crate::pipeline::{LintFacts, Loaded, ResolveContext, Site, lint, load, read_documents, unused_notifiers};
use crate::schema::Schema;
use crate::sim::stock_schema;
use crate::yaml::{Diagnostic, Document, Problems, Severity, Templates};

/// The exit code of warnings that are denied.
const WARNINGS: u8 = 11;

#[derive(Debug, clap::Args)]
pub struct ValidateArgs {
    /// Check these pipeline files, or directories of them, against config.yaml [default: all files]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Ask the site for its schema, and check types, fields and filters against it
    #[arg(long)]
    online: bool,
    /// Exit with 11 if there are warnings
    #[arg(long)]
    deny_warnings: bool,
    /// How problems are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub async fn run(args: &ValidateArgs, chosen: Option<&Path>) -> Result<u8, Failure> {
    let environment = environment();
    let path = config::locate(chosen, &environment);
    let mut problems = Problems::new();
    let config = match Config::load(&path, &environment) {
        Ok((config, warnings)) => {
            problems.extend(warnings);
            Some(config)
        }
        Err(found) => {
            problems.extend(found);
            None
        }
    };
    let mut context = match &config {
        Some(config) => resolve_context(config),
        None => readable_context(&Readable::of(&path, &environment)),
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = entity_configs(&directory.join("entityConfig"), &mut problems);
    let (schema, is_of_site) = match (&config, args.online) {
        (Some(config), true) => (client(config, &Metrics::default())?.schema().await?, true),
        (Some(config), false) => (last_schema(config).await, false),
        (None, _) => (stock_schema(), false),
    };
    if is_of_site {
        check_on_site(&files, &schema, &mut problems);
    }
    context.entities = catalog(&files, schema, is_of_site);
    let (documents, loaded) = pipelines(args, directory, &context);
    let are_whole = !loaded.problems.has_errors();
    problems.extend(loaded.problems);
    let durations = match &config {
        Some(config) => usual_durations(config, &loaded.pipelines).await,
        None => BTreeMap::new(),
    };
    let facts = LintFacts { now: Utc::now(), durations: &durations, templates: &context.templates };
    lint(&documents, &loaded.pipelines, &facts, &mut problems);
    // A file that was not looked at, or that cannot be read, may name any of them.
    if args.paths.is_empty()
        && are_whole
        && let Ok(document) = Document::read(&path, &path.display().to_string())
    {
        unused_notifiers(&document, &loaded.pipelines, &mut problems);
    }
    let summary =
        format!("{} and {}", counted(loaded.pipelines.len(), "pipeline"), counted(files.len(), "entity config"));
    Ok(report(&problems, args, &path, &summary))
}

fn pipelines(args: &ValidateArgs, directory: &Path, context: &ResolveContext) -> (Vec<Document>, Loaded) {
    let all = [directory.join("pipelines")];
    let paths = if args.paths.is_empty() { &all[..] } else { &args.paths };
    let (mut documents, mut problems) = (Vec::new(), Problems::new());
    for path in paths {
        let (found, unreadable) = read_documents(path);
        documents.extend(found);
        problems.extend(unreadable);
    }
    let named: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let loaded = load(&documents, &named.join(" "), context, problems);
    (documents, loaded)
}

/// Returns what pipelines are resolved against when `config.yaml` has errors: what
/// can be read of it, so that its errors are not repeated for every pipeline.
fn readable_context(config: &Readable) -> ResolveContext {
    ResolveContext {
        timezone: config.timezone,
        defaults: config.defaults.clone(),
        site: Site::default(),
        blackouts: config.blackouts.clone(),
        notifiers: config.notifiers.clone(),
        entities: None,
        templates: Templates::new(&environment()),
    }
}

fn entity_configs(directory: &Path, problems: &mut Problems) -> Vec<EntityConfigFile> {
    let hint = "`sgcache job generateEntityConfigs Asset Shot` writes some";
    let name = directory.display().to_string();
    match entity_config_files::read_all(directory) {
        Ok((files, found)) => {
            if files.is_empty() && found.is_empty() {
                let missing = Diagnostic::about_file("SG0100", &name, "there is no entity config");
                problems.push(missing.help(hint.to_owned()));
            }
            found.iter().for_each(|error| problems.extend(entity_config_problem(error)));
            files
        }
        Err(error) => {
            problems.push(unreadable(&error, &name).help(hint.to_owned()));
            Vec::new()
        }
    }
}

fn unreadable(error: &EntityConfigError, name: &str) -> Diagnostic {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Diagnostic::about_file("SG0100", name, format!("cannot be read: {cause}"))
}

fn entity_config_problem(error: &EntityConfigError) -> Problems {
    match error {
        EntityConfigError::Unreadable { path, .. } => unreadable(error, &path.display().to_string()).into(),
        EntityConfigError::Malformed(MalformedConfig { path, line, column, message }) => {
            at_line(&path.display().to_string(), *line, Some(*column), ("SG0102", message))
        }
    }
}

fn check_on_site(files: &[EntityConfigFile], schema: &Schema, problems: &mut Problems) {
    for file in files.iter().filter(|file| !TypeLayout::is_left_out(file, schema)) {
        for LayoutProblem { path, line, message } in TypeLayout::check(file, schema).err().into_iter().flatten() {
            problems.extend(at_line(&path, line, None, ("SG0620", &message)));
        }
    }
}

/// Returns a problem that points at a line, from a column or its first letter on; line 0
/// is the whole file.
fn at_line(file: &str, line: usize, column: Option<usize>, (code, message): (&'static str, &str)) -> Problems {
    let about_file = Diagnostic::about_file(code, file, message);
    let mut problems = Problems::new();
    let text: Arc<str> = std::fs::read_to_string(file).unwrap_or_default().into();
    let mut lines = text.split_inclusive('\n');
    let start: usize = lines.by_ref().take(line.saturating_sub(1)).map(str::len).sum();
    let Some(written) = lines.next().filter(|_| line > 0) else { return about_file.into() };
    let indent = written.chars().take_while(|letter| letter.is_whitespace()).count();
    let column = column.unwrap_or(indent + 1).max(1);
    let before: usize = written.chars().take(column - 1).map(char::len_utf8).sum();
    let span = start + before..start + written.trim_end().len().max(before);
    problems.know(file, &text);
    problems.push(Diagnostic { line, column, span: Some(span), ..about_file });
    problems
}

/// Writes a number with its noun: `1 error`, `2 errors`.
fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Prints what was found and returns the exit code.
fn report(problems: &Problems, args: &ValidateArgs, path: &Path, summary: &str) -> u8 {
    diagnostic_formats::print(problems, args.format);
    let (errors, warnings) = (problems.errors(), problems.warnings());
    if errors > 0 {
        // The errors name their files.
        eprintln!("{}, {}", counted(errors, "error"), counted(warnings, "warning"));
        return Failure::CONFIG;
    }
    eprintln!("{}: fine, with {summary}", path.display());
    let denied = args.deny_warnings && problems.sorted().iter().any(|one| one.severity == Severity::Warning);
    if denied { WARNINGS } else { 0 }
}

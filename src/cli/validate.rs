//! `sgcache pipelines validate`: everything that is wrong with `config.yaml`, the
//! entity configs and the pipelines, in one pass. Nothing is asked of the site,
//! unless that is wanted.

use std::path::{Path, PathBuf};

use super::Failure;
use super::context::{check_layouts, client, environment};
use super::engine::resolve_context;
use super::output::drawn;
use super::pipelines::{catalog, last_schema};
use crate::config::{self, Config, Readable};
use crate::entity_config::EntityConfigFile;
use crate::metrics::Metrics;
use crate::pipeline::{ResolveContext, Site, load_what_fits};
use crate::schema::Schema;
use crate::sim::stock_schema;
use crate::yaml::{Problems, Templates};

#[derive(Debug, clap::Args)]
pub struct ValidateArgs {
    /// Ask the site for its schema, and check types, fields and filters against it
    #[arg(long)]
    online: bool,
}

/// Everything that was found.
#[derive(Default)]
struct Findings {
    problems: Problems,
    /// Problems of entity configs, one line each.
    lines: Vec<String>,
}

pub async fn run(args: &ValidateArgs, chosen: Option<&Path>) -> Result<u8, Failure> {
    let environment = environment();
    let path = config::locate(chosen, &environment);
    let mut findings = Findings::default();
    let config = match Config::load(&path, &environment) {
        Ok((config, warnings)) => {
            findings.problems.extend(warnings);
            Some(config)
        }
        Err(problems) => {
            findings.problems.extend(problems);
            None
        }
    };
    let mut context = match &config {
        Some(config) => resolve_context(config),
        None => readable_context(&Readable::of(&path, &environment)),
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = entity_configs(&directory.join("entityConfig"), &mut findings.lines);
    let (schema, is_of_site) = match (&config, args.online) {
        (Some(config), true) => (client(config, &Metrics::default())?.schema().await?, true),
        (Some(config), false) => (last_schema(config).await, false),
        (None, _) => (stock_schema(), false),
    };
    if is_of_site {
        check_on_site(&files, &schema, &mut findings.lines);
    }
    context.entities = catalog(&files, schema, is_of_site);
    let loaded = load_what_fits(&pipelines_dir(directory), &context);
    findings.problems.extend(loaded.problems);
    let summary = format!("{} pipelines and {} entity configs", loaded.pipelines.len(), files.len());
    Ok(report(&findings, &path, &summary))
}

fn pipelines_dir(directory: &Path) -> PathBuf {
    directory.join("pipelines")
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

fn entity_configs(directory: &Path, lines: &mut Vec<String>) -> Vec<EntityConfigFile> {
    let hint = "`sgcache job generateEntityConfigs Asset Shot` writes some";
    match EntityConfigFile::read_all(directory) {
        Ok((files, problems)) => {
            lines.extend(problems.iter().map(|problem| format!("error: {problem}")));
            if files.is_empty() && problems.is_empty() {
                lines.push(format!("error: {} holds no entity config: {hint}", directory.display()));
            }
            files
        }
        Err(error) => {
            lines.push(format!("error: {error}: {hint}"));
            Vec::new()
        }
    }
}

fn check_on_site(files: &[EntityConfigFile], schema: &Schema, lines: &mut Vec<String>) {
    if let Err(failure) = check_layouts(files, schema) {
        lines.extend(failure.message.lines().map(str::to_owned));
    }
}

/// Prints what was found and returns the exit code.
fn report(findings: &Findings, path: &Path, summary: &str) -> u8 {
    if !findings.problems.is_empty() {
        eprintln!("{}", drawn(&findings.problems));
    }
    findings.lines.iter().for_each(|line| eprintln!("{line}"));
    let errors = findings.problems.errors() + findings.lines.len();
    if errors > 0 {
        eprintln!("{}: {errors} errors, {} warnings", path.display(), findings.problems.warnings());
        return Failure::CONFIG;
    }
    eprintln!("{}: fine, with {summary}", path.display());
    0
}

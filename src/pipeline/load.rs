//! From files to [`Pipeline`]s, with every problem of all files in one pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use chrono_tz::Tz;
use serde_json::Value;

use super::file::{PipelineFile, SHAPE};
use super::resolver::Resolver;
use super::{Blackout, Defaults, EntityCatalog, Pipeline, Site};
use crate::yaml::{Diagnostic, Document, Problems, Shape, Templates, did_you_mean};

/// What pipelines are resolved against.
#[derive(Debug, Clone)]
pub struct ResolveContext {
    /// The zone of schedules that name none.
    pub timezone: Tz,
    /// What applies to pipelines that do not say otherwise.
    pub defaults: Defaults,
    /// The site; it decides jitter too.
    pub site: Site,
    /// The blackouts that pipelines may name.
    pub blackouts: BTreeMap<String, Blackout>,
    /// The notifiers that hooks may name.
    pub notifiers: BTreeSet<String>,
    /// The entity types and fields that arguments may name; without it they are
    /// checked when a step runs.
    pub entities: Option<Arc<EntityCatalog>>,
    /// Renders values and evaluates expressions.
    pub templates: Templates,
}

/// What a directory of pipeline files holds.
#[derive(Debug)]
pub struct Loaded {
    /// The pipelines of the files without errors.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// Everything that is wrong or suspicious.
    pub problems: Problems,
}

/// Reads every `*.yaml` and `*.yml` file of a directory, in the order of names.
///
/// # Errors
///
/// All problems of all files if one of them is an error; warnings come with
/// the pipelines.
pub fn load_directory(directory: &Path, context: &ResolveContext) -> Result<(Vec<Arc<Pipeline>>, Problems), Problems> {
    let loaded = load_what_fits(directory, context);
    loaded.problems.finish(Some(loaded.pipelines))
}

/// Reads a directory, and keeps the pipelines of the files without errors.
pub fn load_what_fits(directory: &Path, context: &ResolveContext) -> Loaded {
    let (documents, problems) = read_documents(directory);
    load(&documents, &directory.display().to_string(), context, problems)
}

/// Parses every `*.yaml` and `*.yml` file of a directory, in the order of names, or one
/// file.
pub fn read_documents(path: &Path) -> (Vec<Document>, Problems) {
    let mut problems = Problems::new();
    let mut documents = Vec::new();
    let files = if path.is_file() { Ok(vec![path.to_owned()]) } else { pipeline_files(path) };
    match files {
        Ok(paths) => {
            for path in paths {
                match Document::read(&path, &path.display().to_string()) {
                    Ok(document) => documents.push(document),
                    Err(found) => problems.extend(found),
                }
            }
        }
        Err(error) => {
            let name = path.display().to_string();
            problems.push(Diagnostic::about_file("SG0100", &name, format!("cannot be read: {error}")));
        }
    }
    (documents, problems)
}

fn pipeline_files(directory: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(directory)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml")).collect();
    paths.sort();
    Ok(paths)
}

/// Resolves parsed files. `origin` names them all, `problems` are those found
/// so far.
pub fn load(documents: &[Document], origin: &str, context: &ResolveContext, mut problems: Problems) -> Loaded {
    let mut pipelines: Vec<Arc<Pipeline>> = Vec::new();
    let mut seen: HashMap<String, &Document> = HashMap::new();
    let mut follower: Option<&Document> = None;
    for document in documents {
        let before = problems.errors();
        let resolved = resolve(document, context, &mut problems);
        if let Some(name) = document.value().get("name").and_then(Value::as_str)
            && let Some(other) = seen.insert(name.to_owned(), document)
        {
            let message = format!("`{name}` is the name of another pipeline too");
            let diagnostic = document.at("/name", "SG0206", message);
            document.report(&mut problems, diagnostic.help(format!("the other one is {}", other.place("/name"))));
        }
        if follows_site(document)
            && let Some(other) = follower.replace(document)
        {
            let message = "another pipeline follows the site, and one process can do so only once";
            let diagnostic = document.at_key("/continuous", "SG0209", message);
            let help = format!("the other one is {}; disable one of them", other.place("/name"));
            document.report(&mut problems, diagnostic.help(help));
        }
        pipelines.extend(resolved.filter(|_| problems.errors() == before).map(Arc::new));
    }
    let enabled = pipelines.iter().filter(|pipeline| pipeline.enabled).count();
    if enabled == 0 && !problems.has_errors() {
        let message = format!("no pipeline is enabled ({} files seen)", documents.len());
        problems.push(Diagnostic::about_file("SG0207", origin, message).warning());
    }
    Loaded { pipelines, problems }
}

/// Tells whether an enabled pipeline follows the event log all the time.
fn follows_site(document: &Document) -> bool {
    let value = document.value();
    let enabled = value.get("enabled").and_then(Value::as_bool).unwrap_or(true);
    let continuous = value.get("continuous").is_some_and(|continuous| !continuous.is_null());
    let steps = value.get("steps").and_then(Value::as_array);
    enabled && continuous && steps.into_iter().flatten().any(|step| step["job"] == "sync")
}

/// Resolves one file; every problem goes to `problems`, and without a value
/// there is at least one error among them.
pub fn resolve(document: &Document, context: &ResolveContext, problems: &mut Problems) -> Option<Pipeline> {
    let before = problems.errors();
    let fits = SHAPE.check(document, "", document.value(), problems);
    // Where the structure is wrong, the rest is checked all the same.
    let fitting = if fits { document.value().clone() } else { fitting_part(document.value())? };
    let file: PipelineFile = document.decode("", &fitting, problems)?;
    let resolver = Resolver { document, context, fits };
    let pipeline = resolver.pipeline(file, problems)?;
    resolver.check_tests(&pipeline, problems);
    if problems.errors() > before {
        return None;
    }
    resolver.warn_about_unused_params(&pipeline, problems);
    Some(pipeline)
}

/// Returns what of a file fits its shape, with stand-ins for what must be there.
fn fitting_part(value: &Value) -> Option<Value> {
    let mut value = value.clone();
    let map = value.as_object_mut()?;
    if !map.get("name").is_some_and(Value::is_string) {
        map.insert("name".to_owned(), Value::from("unnamed"));
    }
    if !map.get("steps").is_some_and(Value::is_array) {
        map.insert("steps".to_owned(), Value::Array(Vec::new()));
    }
    Shape::fitting(&SHAPE, &value)
}

/// Returns the pipeline of a name, or words about the nearest one.
///
/// # Errors
///
/// A message for a person.
pub fn find<'a>(pipelines: &'a [Arc<Pipeline>], name: &str) -> Result<&'a Arc<Pipeline>, String> {
    let found = pipelines.iter().find(|pipeline| pipeline.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = pipelines.iter().map(|p| p.name.as_str()).collect();
        match did_you_mean(name, &names) {
            Some(help) => format!("there is no pipeline `{name}` ({help})"),
            None => format!("there is no pipeline `{name}`"),
        }
    })
}

/// The parameters of several pipelines come as `--set name=value`.
///
/// # Errors
///
/// The text that has no `=`.
pub fn parse_overrides(written: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut overrides = BTreeMap::new();
    for text in written {
        let Some((name, value)) = text.split_once('=') else {
            return Err(format!("`{text}` is not of the form name=value"));
        };
        overrides.insert(name.trim().to_owned(), value.to_owned());
    }
    Ok(overrides)
}

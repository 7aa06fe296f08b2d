//! `sgcache pipelines new`: writes a pipeline file to begin with.

use std::io::Write;
use std::path::Path;

use super::super::Failure;
use super::super::context::load_config;
use super::super::pipeline_files::load_what_fits;
use super::super::schema::pipeline_schema;
use crate::yaml::did_you_mean;

/// What a file can begin with: name, purpose, text.
const TEMPLATES: &[(&str, &str, &str)] = &[
    ("minimal", "one check on working days", include_str!("minimal.yaml")),
    ("counts", "number of entities per type, with a repair", include_str!("../../../pipelines/nightly-counts.yaml")),
    ("samples", "field values in three samples", include_str!("../../../pipelines/sampled-data.yaml")),
    ("scans", "what no event reports", include_str!("../../../pipelines/scans.yaml")),
    ("rebuild", "everything anew, and checked", include_str!("../../../pipelines/weekly-rebuild.yaml")),
];

/// What tells an editor the schema of a file; its first line.
const MODELINE: &str = "# yaml-language-server: $schema=";
/// The schema beside the files: it fits wherever they are.
const SCHEMA: &str = "pipeline.schema.json";

#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// The name of the pipeline, and of its file
    name: String,
    /// Template: minimal, counts, samples, scans or rebuild
    #[arg(long, alias = "from", value_name = "TEMPLATE", default_value = "minimal")]
    template: String,
}

pub async fn run(args: &NewArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let name = &args.name;
    let text = named(template(&args.template)?, name)?;
    let loaded = load_what_fits(&config).await;
    if let Some(other) = loaded.pipelines.iter().find(|pipeline| pipeline.name == *name) {
        return Err(Failure::usage(format!("there is a pipeline `{name}`: {}", other.file)));
    }
    let path = config.pipelines_dir().join(format!("{name}.yaml"));
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::usage(format!("{} exists", path.display())),
        _ => Failure::internal(format!("{} cannot be written: {error}", path.display())),
    };
    std::fs::create_dir_all(config.pipelines_dir()).map_err(failed)?;
    let mut file = std::fs::File::create_new(&path).map_err(failed)?;
    write_schema(&config.pipelines_dir().join(SCHEMA))?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    println!("{}", path.display());
    eprintln!("edit it, then: sgcache pipelines validate {}", path.display());
    eprintln!("               sgcache pipelines test {name}");
    eprintln!("               sgcache pipelines explain {name}");
    Ok(0)
}

/// Writes the schema that the first line of the file names, in place of an older one.
fn write_schema(path: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::internal(format!("{} cannot be written: {error}", path.display()));
    let text =
        serde_json::to_string_pretty(&pipeline_schema()).map_err(|error| Failure::internal(error.to_string()))?;
    std::fs::write(path, format!("{text}\n")).map_err(failed)
}

fn template(wanted: &str) -> Result<&'static str, Failure> {
    if let Some((.., text)) = TEMPLATES.iter().find(|(name, ..)| *name == wanted) {
        return Ok(text);
    }
    let names: Vec<&str> = TEMPLATES.iter().map(|(name, ..)| *name).collect();
    let help = did_you_mean(wanted, &names).map_or(String::new(), |help| format!(" ({help})"));
    let all: Vec<String> = TEMPLATES.iter().map(|(name, purpose, _)| format!("  {name:<8} {purpose}")).collect();
    Err(Failure::usage(format!("there is no template `{wanted}`{help}:\n{}", all.join("\n"))))
}

/// The template under another name.
fn named(template: &str, name: &str) -> Result<String, Failure> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(Failure::usage(format!("`{name}` is not a name: use letters, digits, `-` and `_`")));
    }
    let line = |line: &str| match line {
        line if line.starts_with("name: ") => format!("name: {name}\n"),
        line if line.starts_with(MODELINE) => format!("{MODELINE}{SCHEMA}\n"),
        line => format!("{line}\n"),
    };
    Ok(template.lines().map(line).collect())
}

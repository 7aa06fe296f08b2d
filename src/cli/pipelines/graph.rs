//! `sgcache pipelines graph`: what a pipeline does in which order, as text or as a
//! Mermaid diagram for pages and pull requests.

use std::fmt::Write;
use std::path::Path;

use super::super::Failure;
use super::super::context::load_config;
use super::super::output::step_words;
use super::super::pipeline_files::{load, selected};
use crate::pipeline::{HookTarget, Pipeline, Step};

#[derive(Debug, clap::Args)]
pub struct GraphArgs {
    /// The pipelines [default: all enabled ones]
    #[arg(add = super::super::completion::pipelines())]
    names: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// Indented text
    #[default]
    Text,
    /// A Mermaid flowchart
    Mermaid,
}

pub async fn run(args: &GraphArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let pipelines = selected(load(&config).await?, &args.names)?;
    match args.format {
        Format::Text => {
            let texts: Vec<String> = pipelines.iter().map(|pipeline| text(pipeline)).collect();
            print!("{}", texts.join("\n"));
        }
        Format::Mermaid => {
            let charts = pipelines.iter().enumerate().map(|(at, pipeline)| mermaid(at, pipeline));
            print!("flowchart LR\n{}", charts.collect::<String>());
        }
    }
    Ok(0)
}

/// The pipeline as a tree.
fn text(pipeline: &Pipeline) -> String {
    let mut branches: Vec<(String, Vec<String>)> =
        pipeline.steps.iter().map(|step| (step_words(&step.id, step.job), conditions(step))).collect();
    let reactions = pipeline.on_drift.iter().map(|step| format!("run {}", step.job));
    let mut on_drift: Vec<String> = reactions.collect();
    for key in ["on_drift", "on_error", "on_success", "always"] {
        let mut targets = if key == "on_drift" { std::mem::take(&mut on_drift) } else { Vec::new() };
        let hooks = pipeline.hooks.all().filter(|(of, _)| *of == key);
        targets.extend(hooks.map(|(_, hook)| hook_words(&hook.target)));
        if !targets.is_empty() {
            branches.push((key.to_owned(), targets));
        }
    }
    let mut out = format!("{}  {}\n", pipeline.name, pipeline.starts());
    for (at, (branch, leaves)) in branches.iter().enumerate() {
        let is_last = at + 1 == branches.len();
        let (corner, bar) = if is_last { ("└─", "   ") } else { ("├─", "│  ") };
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{corner} {branch}");
        for (at, leaf) in leaves.iter().enumerate() {
            let corner = if at + 1 == leaves.len() { "└─" } else { "├─" };
            let _ = writeln!(out, "{bar}{corner} {leaf}");
        }
    }
    out
}

fn conditions(step: &Step) -> Vec<String> {
    let needs = (!step.needs.is_empty()).then(|| format!("needs {}", step.needs.join(", ")));
    let of = |word: &str, expression: &Option<String>| expression.as_ref().map(|text| format!("{word} {text}"));
    let parts = [needs, of("when", &step.when), of("warning when", &step.warn_when), of("drift when", &step.fail_when)];
    parts.into_iter().flatten().collect()
}

fn hook_words(target: &HookTarget) -> String {
    match target {
        HookTarget::Notify(name) => format!("notify {name}"),
        // The address is often a secret.
        HookTarget::Ping(_) => "ping".to_owned(),
        HookTarget::File(path) => format!("write {path}"),
    }
}

/// The nodes and edges of one pipeline; `number` keeps the names of several apart.
fn mermaid(number: usize, pipeline: &Pipeline) -> String {
    let mut lines = vec![format!("  subgraph p{number} [{}]", quoted(&pipeline.name))];
    let start = format!("p{number}start");
    lines.push(format!("    {start}([{}])", quoted(&pipeline.starts())));
    let id = |name: &str| {
        let at = pipeline.steps.iter().position(|step| step.id == name).unwrap_or_default();
        format!("p{number}s{at}")
    };
    for step in &pipeline.steps {
        let when = step.when.as_ref().map(|when| format!("<br/>when {when}"));
        let label = quoted(&format!("{}{}", step_words(&step.id, step.job), when.unwrap_or_default()));
        lines.push(format!("    {}[{label}]", id(&step.id)));
        if step.needs.is_empty() {
            lines.push(format!("    {start} --> {}", id(&step.id)));
        }
        lines.extend(step.needs.iter().map(|need| format!("    {} --> {}", id(need), id(&step.id))));
    }
    for (at, reaction) in pipeline.on_drift.iter().enumerate() {
        lines.push(format!("    p{number}d{at}[{}]", quoted(reaction.job)));
        let can_drift = pipeline.steps.iter().filter(|step| step.fail_when.is_some());
        lines.extend(can_drift.map(|step| format!("    {} -. drift .-> p{number}d{at}", id(&step.id))));
    }
    for (at, (key, hook)) in pipeline.hooks.all().enumerate() {
        lines.push(format!("    p{number}h{at}>{}]", quoted(&hook_words(&hook.target))));
        lines.push(format!("    {start} -. {key} .-> p{number}h{at}"));
    }
    lines.push("  end".to_owned());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A label: quotes would end it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "#quot;"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::pipeline::{Defaults, ResolveContext, Site, resolve};
    use crate::yaml::{Document, Problems, Templates};

    const NIGHT: &str = "name: night
schedule: { cron: '0 4 * * SUN', timezone: Europe/Paris }
steps:
  - { id: rebuild, job: rebuild }
  - { id: counts, job: validateCounts, needs: rebuild, fail_when: result.missing > 0 }
  - { id: data, job: validateData, needs: [rebuild, counts], when: run.hour < 6 }
on_drift:
  - { job: repair }
  - { notify: td-slack }
always: [{ ping: 'http://ping.example/secret' }]
";

    fn night() -> Pipeline {
        let context = ResolveContext {
            timezone: chrono_tz::UTC,
            defaults: Defaults::default(),
            site: Site::default(),
            blackouts: BTreeMap::new(),
            notifiers: ["td-slack".to_owned()].into(),
            entities: None,
            templates: Templates::new(&BTreeMap::new()),
        };
        let document = Document::yaml("p.yaml", NIGHT.as_bytes()).expect("YAML");
        let mut problems = Problems::new();
        resolve(&document, &context, &mut problems).unwrap_or_else(|| panic!("{problems}"))
    }

    #[test]
    fn a_pipeline_is_a_tree_of_its_steps_and_reactions() {
        insta::assert_snapshot!(text(&night()), @r"
        night  At 04:00, on Sunday. (Europe/Paris)
        ├─ rebuild
        ├─ counts: validateCounts
        │  ├─ needs rebuild
        │  └─ drift when result.missing > 0
        ├─ data: validateData
        │  ├─ needs rebuild, counts
        │  ├─ when run.hour < 6
        │  └─ drift when result.drift > 0
        ├─ on_drift
        │  ├─ run repair
        │  └─ notify td-slack
        └─ always
           └─ ping
        ");
    }

    #[test]
    fn a_diagram_has_an_edge_for_each_need_and_each_reaction() {
        insta::assert_snapshot!(format!("flowchart LR\n{}", mermaid(0, &night())), @r#"
        flowchart LR
          subgraph p0 ["night"]
            p0start(["At 04:00, on Sunday. (Europe/Paris)"])
            p0s0["rebuild"]
            p0start --> p0s0
            p0s1["counts: validateCounts"]
            p0s0 --> p0s1
            p0s2["data: validateData<br/>when run.hour < 6"]
            p0s0 --> p0s2
            p0s1 --> p0s2
            p0d0["repair"]
            p0s1 -. drift .-> p0d0
            p0s2 -. drift .-> p0d0
            p0h0>"notify td-slack"]
            p0start -. on_drift .-> p0h0
            p0h1>"ping"]
            p0start -. always .-> p0h1
          end
        "#);
    }
}

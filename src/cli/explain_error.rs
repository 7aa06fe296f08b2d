//! `sgcache explain-error`: what a code of a diagnostic means, why, and what to do.
//!
//! The texts are `docs/reference/errors.md`, one section per code; a test compares the
//! sections with the codes in use, and tries their examples.

use serde_json::json;

use super::Failure;
use super::output::{self, Output};
use crate::yaml::did_you_mean;

const REFERENCE: &str = include_str!("../../docs/reference/errors.md");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A code such as SG0205, or the class of a failed step such as unavailable [default: list all]
    code: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What the reference says about one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    /// `SG0205`, or the class of a failed step.
    pub code: &'static str,
    pub title: &'static str,
    /// Markdown.
    pub body: &'static str,
}

/// Returns every section, in the order of the reference.
pub(super) fn sections() -> impl Iterator<Item = Section> {
    REFERENCE.split("\n## ").skip(1).filter_map(|section| {
        let (heading, body) = section.split_once('\n')?;
        let (code, title) = heading.split_once(": ")?;
        Some(Section { code, title, body: body.trim() })
    })
}

/// Prints one section, or a list of all.
///
/// # Errors
///
/// The code is unknown.
pub fn run(args: &Args) -> Result<u8, Failure> {
    let Some(code) = &args.code else {
        list(args.output);
        return Ok(0);
    };
    let Some(section) = sections().find(|section| section.code.eq_ignore_ascii_case(code)) else {
        let known: Vec<&str> = sections().map(|section| section.code).collect();
        let help = did_you_mean(code, &known).unwrap_or_else(|| "`sgcache explain-error` lists all".to_owned());
        return Err(Failure::usage(format!("there is no code `{code}` ({help})")));
    };
    match args.output {
        Output::Table => print!("{}", text(section)),
        Output::Json | Output::Ndjson => println!("{}", to_json(section)),
    }
    Ok(0)
}

fn list(form: Output) {
    match form {
        Output::Table => {
            let mut table = output::table(["code", "what is wrong"]);
            for section in sections() {
                table.add_row([section.code, section.title]);
            }
            println!("{table}");
        }
        Output::Json => println!("{}", sections().map(to_json).collect::<serde_json::Value>()),
        Output::Ndjson => sections().for_each(|section| println!("{}", to_json(section))),
    }
}

fn to_json(section: Section) -> serde_json::Value {
    json!({ "code": section.code, "title": section.title, "text": section.body })
}

/// A section for a terminal: paragraphs fit it, examples are indented and say whether
/// they are right.
fn text(section: Section) -> String {
    let mut lines = output::wrapped("", &format!("{}: {}", section.code, section.title));
    for paragraph in section.body.split("\n\n") {
        lines.push(String::new());
        match paragraph.strip_prefix("```").and_then(|example| example.split_once('\n')) {
            Some((info, example)) => {
                lines.push(format!("{}:", info.rsplit(' ').next().unwrap_or("example")));
                let example = example.lines().filter(|line| !line.starts_with("```"));
                lines.extend(example.map(|line| format!("    {line}")));
            }
            None => lines.extend(output::wrapped("", &paragraph.replace("**", "").replace('\n', " "))),
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_paragraph_fits_a_terminal() {
        for section in sections() {
            let shown = text(section);
            let long = shown.lines().find(|line| !line.starts_with("    ") && line.chars().count() > output::COLUMNS);
            assert_eq!(long, None, "{}", section.code);
        }
    }

    #[test]
    fn a_section_reads_well_without_markdown() {
        let section = sections().find(|section| section.code == "SG0205").expect("a section");
        insta::assert_snapshot!(text(section), @r"
        SG0205: unknown job

        `job` names no job. The jobs are those of `sgcache job --help`.

        Remedy: take the name that is suggested.

        wrong:
            name: nightly
            steps: [{ id: counts, job: validateCuonts }]

        right:
            name: nightly
            steps: [{ id: counts, job: validateCounts }]
        ");
    }
}

//! Diagnostics in the forms that programs read: JSON, annotations of GitHub Actions, and
//! SARIF 2.1.0.

use serde_json::{Value, json};

use super::explain_error::sections;
use super::output::drawn;
use crate::yaml::{Diagnostic, Problems, Severity};

/// How diagnostics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Drawn with the lines that they point at, on stderr
    #[default]
    Text,
    /// One JSON document
    Json,
    /// Annotations of GitHub Actions
    Github,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

/// Prints diagnostics: for people on stderr, for programs on stdout.
pub fn print(problems: &Problems, format: Format) {
    match format {
        Format::Text if problems.is_empty() => {}
        Format::Text => eprintln!("{}", drawn(problems)),
        Format::Json => println!("{}", to_json(problems)),
        Format::Github => problems.sorted().into_iter().for_each(|one| println!("{}", annotation(one))),
        Format::Sarif => println!("{}", sarif(problems)),
    }
}

fn to_json(problems: &Problems) -> Value {
    json!({
        "schema": "sgcache.diagnostics/1",
        "errors": problems.errors(),
        "warnings": problems.warnings(),
        "diagnostics": problems.to_json(),
    })
}

fn level(diagnostic: &Diagnostic) -> &'static str {
    match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn message(diagnostic: &Diagnostic) -> String {
    let help = diagnostic.help.iter().map(|help| format!("\nhelp: {help}"));
    std::iter::once(diagnostic.message.clone()).chain(help).collect()
}

/// `::error file=F,line=1,col=2,title=SG0205::message`, with what would end it escaped.
fn annotation(diagnostic: &Diagnostic) -> String {
    let escaped = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| escaped(text).replace(':', "%3A").replace(',', "%2C");
    let mut properties = vec![format!("file={}", property(&diagnostic.file))];
    if diagnostic.line > 0 {
        properties.push(format!("line={},col={}", diagnostic.line, diagnostic.column));
    }
    properties.push(format!("title={}", diagnostic.code));
    format!("::{} {}::{}", level(diagnostic), properties.join(","), escaped(&message(diagnostic)))
}

fn sarif(problems: &Problems) -> Value {
    let found = problems.sorted();
    let mut rules: Vec<Value> = Vec::new();
    for section in sections().filter(|section| found.iter().any(|one| one.code == section.code)) {
        let help = json!({ "text": section.body, "markdown": section.body });
        rules.push(json!({ "id": section.code, "shortDescription": { "text": section.title }, "help": help }));
    }
    let result = |diagnostic: &Diagnostic| {
        let mut location = json!({ "artifactLocation": { "uri": diagnostic.file.replace('\\', "/") } });
        if diagnostic.line > 0 {
            location["region"] = json!({ "startLine": diagnostic.line, "startColumn": diagnostic.column });
        }
        json!({
            "ruleId": diagnostic.code,
            "level": level(diagnostic),
            "message": { "text": message(diagnostic) },
            "locations": [{ "physicalLocation": location }],
        })
    };
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "sgcache", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "results": found.into_iter().map(result).collect::<Vec<Value>>(),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Document;

    fn problems() -> Problems {
        let text = "name: nightly\nsteps: [{ id: a, job: prug }]\n";
        let document = Document::yaml("pipelines/a,b.yaml", text.as_bytes()).expect("YAML");
        let mut problems = Problems::new();
        let unknown = document.unknown("/steps/0/job", "SG0205", "no job is named `prug`, 100%", "prug", &["purge"]);
        document.report(&mut problems, unknown);
        problems.push(Diagnostic::about_file("SG0207", "pipelines", "no pipeline is enabled").warning());
        problems
    }

    #[test]
    fn annotations_escape_what_would_end_them() {
        let found = problems();
        let lines: Vec<String> = found.sorted().into_iter().map(annotation).collect();
        assert_eq!(
            lines,
            [
                "::warning file=pipelines,title=SG0207::no pipeline is enabled",
                "::error file=pipelines/a%2Cb.yaml,line=2,col=23,title=SG0205::no job is named `prug`, 100%25%0Ahelp: \
                 did you mean `purge`?",
            ]
        );
    }

    #[test]
    fn sarif_names_the_rule_and_the_place_of_each_result() {
        let report = sarif(&problems());
        let run = &report["runs"][0];
        let rules: Vec<&Value> =
            run["tool"]["driver"]["rules"].as_array().expect("rules").iter().map(|rule| &rule["id"]).collect();
        assert_eq!(rules, ["SG0205", "SG0207"]);
        let place = &run["results"][1]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "pipelines/a,b.yaml");
        assert_eq!(place["region"], json!({ "startLine": 2, "startColumn": 23 }));
        assert_eq!((&run["results"][1]["ruleId"], &run["results"][1]["level"]), (&json!("SG0205"), &json!("error")));
    }
}

//! Parts of a run: chosen steps, a run that goes on after another one, what a run would do,
//! and what is said while it runs.

use regex_lite::Regex;
use serde_json::{Value, json};
use sgcache::sim::SimHandle;

use crate::program::Place;
use crate::servers::skipped;

const CHAIN: &str = "name: chain
params: { types: { type: list, items: string, default: [Shot] } }
steps:
  - { id: counts, job: validateCounts, with: { types: \"${{ params.types }}\" } }
  - { id: data, job: validateData, needs: [counts], with: { types: [Shot], limit: 1200 }, warn_when: result.checked == 0 }
  - { id: late, job: purge, needs: [data], when: steps.counts.result.checked > 0 }
on_drift: [{ job: repair }]
always: [{ ping: \"${{ env('SGCACHE_PING', '') }}\" }]
";

async fn place() -> (Place, SimHandle) {
    let (place, site) = Place::imported(600).await;
    std::fs::write(place.path("pipelines/chain.yaml"), CHAIN).expect("a file");
    (place, site)
}

/// The steps of a report: id, status, and the reason of those that were left out.
fn steps(report: &Value) -> Vec<(String, String)> {
    let all = report["steps"].as_array().expect("steps").iter();
    all.map(|step| {
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        (text("id"), format!("{} {}", text("status"), text("reason")).trim().to_owned())
    })
    .collect()
}

fn owned(steps: &[(&str, &str)]) -> Vec<(String, String)> {
    steps.iter().map(|(id, words)| ((*id).to_owned(), (*words).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_steps_run_and_the_others_count_as_met() {
    let (place, _site) = place().await;
    let once = |more: &[&str], code: i32| {
        let args: Vec<&str> =
            ["pipelines", "run", "--once", "chain", "-o", "json"].iter().chain(more).copied().collect();
        place.run(&args).expect_code(code)
    };
    let left_out = "skipped left out: it was not chosen";
    let only = once(&["--only", "data"], 0).json();
    assert_eq!(steps(&only), owned(&[("counts", left_out), ("data", "ok"), ("late", left_out)]));
    let two = once(&["--only", "counts,late"], 0).json();
    assert_eq!(steps(&two), owned(&[("counts", "ok"), ("data", left_out), ("late", "ok")]));
    // The condition of a later step sees nothing of a step that was left out.
    let from = once(&["--from", "data"], 0).json();
    let unmet = "skipped `steps.counts.result.checked > 0` does not hold";
    assert_eq!(steps(&from), owned(&[("counts", left_out), ("data", "ok"), ("late", unmet)]));

    once(&["--only", "dat"], 2).says(&["`chain` has no step `dat`", "did you mean `data`?"]);
    once(&["--from", "nothing"], 2).says(&["no step `nothing`"]);
    once(&["sync", "--only", "data"], 2).says(&["one pipeline"]);
    place.run(&["pipelines", "run", "--only", "data"]).expect_code(2).says(&["--once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_come_from_files_too() {
    let (place, _site) = place().await;
    std::fs::write(place.path("types.json"), "[\"Task\", \"Asset\"]\n").expect("a file");
    let once = |set: &[&str]| {
        let args: Vec<&str> = ["pipelines", "run", "--once", "chain", "--only", "counts", "-o", "json"]
            .iter()
            .chain(set)
            .copied()
            .collect();
        place.run(&args)
    };
    let report = once(&["--set-file", "types=types.json"]).expect_code(0).json();
    assert_eq!(report["params"]["types"], json!(["Task", "Asset"]));
    let types: Vec<&String> = report["steps"][0]["result"]["by_type"].as_object().expect("types").keys().collect();
    assert_eq!(types, ["Asset", "Task"]);
    once(&["--set-file", "types=none.json"]).expect_code(2).says(&["--set-file types", "none.json", "cannot be read"]);
    once(&["--set", "types=Shot", "--set-file", "types=types.json"]).expect_code(2).says(&["both give `types`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_asks_nothing_and_writes_nothing() {
    let (place, site) = place().await;
    let files = || {
        let listed = std::fs::read_dir(place.path("data")).expect("a directory").filter_map(Result::ok);
        let mut all: Vec<_> = listed
            .filter(|file| file.path().is_file())
            .map(|file| (file.file_name(), std::fs::read(file.path()).ok()))
            .collect();
        all.sort();
        all
    };
    let (before, asked) = (files(), site.site().requests.all());
    let args = ["pipelines", "run", "--once", "chain", "--dry-run", "-o", "json"];
    let plan = &place.run(&args).expect_code(0).json()[0];
    let shown: Vec<_> = plan["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| (&step["id"], &step["types"], &step["least_requests"]))
        .collect();
    let shot = json!(["Shot"]);
    assert_eq!(shown[..2], [(&json!("counts"), &shot, &json!(1)), (&json!("data"), &shot, &json!(3))]);
    assert_eq!(plan["steps"][1]["with"], json!({"types": ["Shot"], "limit": 1200}));
    assert_eq!(plan["steps"][2]["left_out"], "`steps.counts.result.checked > 0` does not hold");
    assert_eq!((&plan["on_drift"], &plan["hooks"]), (&json!(["repair"]), &json!({"always": ["ping"]})));
    assert_eq!(plan["typical"], Value::Null);
    let job = place.run(&["job", "validateData", "Shot", "Task", "--limit", "1000", "--dry-run"]).expect_code(0).stdout;
    assert!(job.contains("at least 4 requests") && job.contains("Shot, Task"), "{job}");
    assert_eq!(site.site().requests.all(), asked);
    assert_eq!(files(), before);

    place.run(&["pipelines", "run", "--once", "chain"]).expect_code(0);
    let text = place.run(&["pipelines", "run", "--once", "chain", "--dry-run"]).expect_code(0).stdout;
    assert!(text.contains("(1 runs)") && text.contains("after drift: repair"), "{text}");
    // With the site away it says the same.
    site.shutdown().await;
    assert_eq!(place.run(&["pipelines", "run", "--once", "chain", "--dry-run"]).expect_code(0).stdout, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_sees_what_happens_as_it_happens() {
    let (place, _site) = place().await;
    place.run(&["job", "corrupt", "--rows", "2"]).expect_code(0);
    let said = place.run(&["job", "validateData", "-o", "ndjson"]).expect_code(10).stdout;
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    assert_eq!(names[..2], ["run.started", "step.started"]);
    let found = events.iter().filter(|event| event["event"] == "drift").map(|event| &event["entity_type"]);
    assert!(found.count() >= 2, "{said}");
    assert_eq!(names[names.len() - 2..], ["step.finished", "run.finished"]);
    let (run, step) = (&events[events.len() - 1], &events[events.len() - 2]);
    assert_eq!(
        (&run["status"], &step["status"], &step["result"]["drift"]),
        (&json!("drift"), &json!("drift"), &json!(2))
    );
    // Type by type, up to all of them.
    let progress: Vec<&Value> = events.iter().filter(|event| event["event"] == "progress").collect();
    let done: Vec<u64> = progress.iter().map(|one| one["types_done"].as_u64().expect("a number")).collect();
    let types = progress[0]["types"].as_u64().expect("a number");
    assert!(types > 5 && done.is_sorted() && done[0] == 0 && done[done.len() - 1] == types, "{done:?} of {types}");
    let checked = progress[progress.len() - 1]["checked"].as_u64();
    assert_eq!(checked, step["result"]["checked"].as_u64());
    // Where stderr is no terminal, a short job says nothing but its end.
    let table = place.run(&["job", "validateCounts", "Shot"]).expect_code(0);
    assert_eq!(table.stderr.lines().count(), 1, "{}", table.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_after_an_earlier_one() {
    let (place, _site) = place().await;
    let daemon = place.daemon();
    let run = |args: &[&str], code: i32| place.run(&[&["pipelines"], args, &["-o", "json"]].concat()).expect_code(code);
    let first = run(&["trigger", "chain", "--idempotency-key", "night"], 0).json();
    let run_id = first["run_id"].as_str().expect("an id");
    assert_eq!(run(&["trigger", "chain", "--idempotency-key", "night"], 0).json()["run_id"], run_id);

    let second = run(&["retry", run_id, "--from", "late"], 0).json();
    assert_ne!(second["run_id"], run_id);
    let carried = format!("ok left out: its result is that of run {run_id}");
    // `late` runs: it sees the result that was carried over.
    assert_eq!(steps(&second), owned(&[("counts", &carried), ("data", &carried), ("late", "ok")]));
    assert_eq!((&second["requests"], &second["steps"][0]["attempts"]), (&json!(0), &json!(0)));
    assert_eq!(second["steps"][0]["result"]["checked"], first["steps"][0]["result"]["checked"]);

    run(&["retry", run_id, "--from", "lat"], 2).says(&["no step `lat`", "did you mean `late`?"]);
    let alone = place.run(&["pipelines", "run", "--once", "chain", "--only", "counts", "-o", "json"]).json();
    let again = run(&["retry", alone["run_id"].as_str().expect("an id"), "--from", "late"], 0).json();
    assert_eq!(again["steps"][2]["reason"], "`data` has no result", "what was left out has none");
    assert_eq!(daemon.terminate().0, Some(0));
}

/// Runs a command in a terminal of its own, and returns what it drew, without colours and
/// movements of the cursor; `None` where there is no program for that.
fn in_terminal(place: &Place, args: &[&str]) -> Option<String> {
    let command = place.command(args);
    let program = std::path::PathBuf::from(command.get_program());
    let line = format!("'{}' {}", program.display(), args.join(" "));
    let mut script = std::process::Command::new("script");
    script.args(["-q", "-e", "-c", &line, "/dev/null"]).current_dir(place.path("")).env("TERM", "xterm");
    let ended = match script.stdin(std::process::Stdio::null()).output() {
        Ok(ended) => ended,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("script: {error}"),
    };
    let drawn = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{drawn}");
    Some(Regex::new(r"\x1b\[[0-9;?]*[A-Za-z]").expect("a pattern").replace_all(&drawn, "").into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_how_far_a_job_is() {
    let (place, _site) = place().await;
    let Some(drawn) = in_terminal(&place, &["job", "validateData"]) else {
        return skipped("cli_steps", "there is no `script` to open a terminal");
    };
    assert!(drawn.contains("compared, ") && drawn.contains(" types left"), "{drawn}");
    // What a run of the daemon logs is seen while one waits for it.
    let daemon = place.daemon();
    let drawn = in_terminal(&place, &["pipelines", "trigger", "chain"]).expect("a terminal");
    assert!(drawn.contains("counts: step started") && drawn.contains("chain: ok in"), "{drawn}");
    assert_eq!(daemon.terminate().0, Some(0));
}

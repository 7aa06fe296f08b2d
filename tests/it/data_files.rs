//! The data directory is for its owner alone: whatever the umask of who starts the
//! program, and also where an earlier version left files open.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::program::{Place, Running};
use crate::proxy_rig::find;

/// Runs the program with a umask that takes nothing away.
fn with_open_umask(place: &Place, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sgcache")]).args(args);
    command.current_dir(place.dir.path()).env_remove("SGCACHE_CONFIG").env_remove("SGCACHE_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Calls `look` with everything below a directory, and with itself.
fn walk(path: &Path, look: &mut impl FnMut(&Path, bool)) {
    look(path, path.is_dir());
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            walk(&entry.expect("an entry").path(), look);
        }
    }
}

/// Fails with everything that others may do something with; returns the names of the files.
#[track_caller]
fn check(data: &Path) -> Vec<String> {
    let (mut names, mut open) = (Vec::new(), Vec::new());
    walk(data, &mut |path, is_directory| {
        let Ok(found) = fs::metadata(path) else { return };
        let mode = found.permissions().mode() & 0o777;
        if mode != if is_directory { 0o700 } else { 0o600 } {
            open.push(format!("{} is {mode:04o}", path.display()));
        }
        names.push(path.strip_prefix(data).expect("below it").display().to_string());
    });
    assert!(open.is_empty(), "{}", open.join("\n"));
    names
}

/// Starts a daemon, reads through it and runs a job beside it, so that every file is there.
async fn work(place: &Place) -> Running {
    let daemon = Running::spawn(&mut with_open_umask(place, &["pipelines", "run"]));
    place.until("/readyz", |status, _| status == 200);
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let body = json!({"method_name": "read", "params": [auth, find("Shot", json!([]), &["code"])]});
    let client = reqwest::Client::new();
    client.post(format!("http://{}/api3/json", place.api)).json(&body).send().await.expect("an answer");
    let job = with_open_umask(place, &["job", "validateCounts"]).status().expect("the program runs");
    assert!(job.success());
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_is_for_its_owner_alone_whatever_the_umask() {
    let place = Place::new();
    let _site = place.sim(300, 0.0);
    let daemon = work(&place).await;
    let data = place.path("data");
    let names = check(&data);
    for expected in
        ["state.sqlite", "store.sqlite", "audit.ndjson", "credentials.key", "leader.lock", "control.json", "locks/"]
    {
        assert!(names.iter().any(|name| name.starts_with(expected)), "no {expected} in {names:?}");
    }
    assert_eq!(daemon.terminate().0, Some(0));

    // As an earlier version left them.
    walk(&data, &mut |path, is_directory| {
        let mode = if is_directory { 0o777 } else { 0o666 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    });
    // Nothing opens this one again.
    let left = data.join("locks/pipeline-removed.lock");
    fs::write(&left, "").expect("a file");
    fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).expect("a mode");
    let daemon = work(&place).await;
    check(&data);
    assert_eq!(daemon.terminate().0, Some(0));
}

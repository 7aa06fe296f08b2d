//! Faults of the site, the disk and the data directory, met at the command line:
//! each is named with its remedy, and what is stored stays.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use sgcache::sim::Trouble;

use crate::program::{Ended, Place, get};
use crate::servers::skipped;
use crate::waiting::{Wait, block_until};

/// The shots that `find` prints.
#[track_caller]
fn shots(place: &Place) -> usize {
    let found = place.run(&["find", "Shot", "--fields", "code", "--limit", "500", "-o", "json"]).expect_code(0).json();
    found.as_array().expect("an array").len()
}

#[test]
fn a_certificate_that_nobody_signed_is_named_with_the_setting_for_a_private_authority() {
    let place = Place::new();
    let (key, certificate) = (place.path("key.pem"), place.path("certificate.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return skipped("cli_faults", "openssl is not installed");
    }
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &place.site, "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    while std::net::TcpStream::connect(&place.site).is_err() {
        assert!(server.try_wait().expect("a status").is_none(), "openssl ended early");
    }
    place.edit("config.yaml", "site: http://", "site: https://");
    let ended = place.run(&["job", "validateCounts"]);
    server.kill().expect("openssl stops");
    server.wait().expect("openssl ends");
    ended.expect_code(78).says(&[&place.site, "certificate", "shotgun.ca_certificate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_without_rights_to_a_type_is_told_which_and_nothing_is_taken_for_gone() {
    let place = Place::new();
    let site = place.site_here(1500).await;
    place.run(&["job", "import"]).expect_code(0);
    let before = shots(&place);
    assert!(before > 0);

    let words = "API read() CRUD ERROR #6: Entity Shot can not be read by this user. \
                 Rule: Followers -- PermissionRule 315: read_permission FOR entity_type => Shot";
    let refused = |method: &str| site.site().troubles.next_of(method, 1000, Trouble::Fault(104, words.into()));
    refused("read Shot");
    refused("summarize Shot");
    let said = ["Shot can not be read", "PermissionRule 315", "the rights of the script"];
    for job in ["validateData", "validateCounts", "rebuild"] {
        place.run(&["job", job, "Shot"]).expect_code(77).says(&said);
    }
    assert_eq!(shots(&place), before);
    site.site().troubles.clear();
    place.run(&["job", "validateData", "Shot"]).expect_code(0);
}

/// Runs a shell in a name space of its own, where a disk of a few megabytes lies
/// under `data`: nothing outside can be filled up.
pub fn on_a_small_disk(place: &Place, script: &str) -> Option<Ended> {
    let mounted = |script: &str| {
        let script = format!("mount -t tmpfs -o size=24m none data && {script}");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).current_dir(place.dir.path());
        command.env("SGCACHE", env!("CARGO_BIN_EXE_sgcache")).stdin(Stdio::null()).output()
    };
    std::fs::create_dir_all(place.path("data")).expect("a directory");
    if !mounted("true").is_ok_and(|output| output.status.success()) {
        skipped("cli_faults", "a small disk cannot be mounted here (`unshare --user --mount` is refused)");
        return None;
    }
    Some(Ended::from(mounted(script).expect("unshare runs")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_what_is_stored_stays_readable() {
    let place = Place::new();
    let _site = place.site_here(1500).await;
    let script = r#"
        "$SGCACHE" job import >&2 || exit 90
        "$SGCACHE" find Shot --fields code -o json > before.json || exit 91
        dd if=/dev/zero of=data/filler bs=4096 2>/dev/null
        # Opening a database takes some pages; a rebuild takes more.
        truncate -s -196608 data/filler
        "$SGCACHE" job rebuild Shot 2> full.txt; echo $? > full.code
        "$SGCACHE" find Shot --fields code -o json > full.json || exit 92
        rm data/filler
        "$SGCACHE" job rebuild Shot >&2 || exit 93
        "$SGCACHE" job validateData >&2 || exit 94
        "$SGCACHE" find Shot --fields code -o json > after.json"#;
    let Some(ended) = on_a_small_disk(&place, script) else { return };
    let ended = ended.expect_code(0);
    let read = |name: &str| std::fs::read_to_string(place.path(name)).expect("a file");
    let said = read("full.txt");
    assert!(said.contains("no room left") && said.contains("data"), "{said}\n{}", ended.stderr);
    assert_eq!(read("full.code").trim(), "69", "{said}");
    assert_eq!((read("full.json"), read("after.json")), (read("before.json"), read("before.json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_data_directory_is_gone_is_not_ready() {
    let place = Place::new();
    let _site = place.site_here(300).await;
    let _daemon = place.daemon();
    place.until("/readyz", |status, _| status == 200);
    std::fs::rename(place.path("data"), place.path("elsewhere")).expect("it is moved");
    let words = place.until("/readyz", |status, _| status == 503);
    assert!(words.contains("state.sqlite was removed or replaced while it was in use"), "{words}");
}

/// A daemon whose data directory is a small disk.
pub struct SmallDisk {
    pub place: Arc<Place>,
    run: Option<JoinHandle<Option<Ended>>>,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A test that fails leaves no daemon behind.
        self.stop();
    }
}

impl SmallDisk {
    /// Starts the daemon and waits until it is ready; `None` where a disk cannot be mounted.
    pub fn start(place: Place) -> Option<Self> {
        let script = r#"
            "$SGCACHE" pipelines run 2> daemon.txt & daemon=$!
            while [ ! -e fill ]; do sleep 0.1; done
            dd if=/dev/zero of=data/filler bs=4096 2>/dev/null
            touch filled
            while [ ! -e free ]; do sleep 0.1; done
            rm data/filler
            while [ ! -e end ]; do sleep 0.1; done
            kill -TERM $daemon; wait $daemon"#;
        let place = Arc::new(place);
        let on_disk = Arc::clone(&place);
        let run = std::thread::spawn(move || on_a_small_disk(&on_disk, script));
        let mut disk = Self { place, run: Some(run) };
        if disk.until("/readyz", |status, _| status == 200) {
            return Some(disk);
        }
        assert!(disk.stop().is_none(), "the daemon ended early");
        None
    }

    /// Leaves no room on the disk.
    pub fn fill(&self) {
        self.order("fill");
        block_until(|| self.place.path("filled").exists());
    }

    /// Makes room again.
    pub fn free(&self) {
        self.order("free");
    }

    /// Ends the daemon; returns how.
    pub fn end(mut self) -> Option<i32> {
        self.stop().expect("a disk").code
    }

    fn stop(&mut self) -> Option<Ended> {
        let run = self.run.take()?;
        ["fill", "free", "end"].iter().for_each(|name| self.order(name));
        run.join().expect("no panic")
    }

    /// Asks the ops listener until `enough(status, body)`; `false` when the daemon has ended.
    pub fn until(&self, path: &str, mut enough: impl FnMut(u16, &str) -> bool) -> bool {
        let wait = Wait::begin();
        while self.run.as_ref().is_some_and(|run| !run.is_finished()) {
            let (status, body) = get(&format!("http://{}{path}", self.place.ops)).unwrap_or_default();
            if enough(status, &body) {
                return true;
            }
            wait.pause(|| format!("{path} says {status} {body}"));
        }
        false
    }

    fn order(&self, name: &str) {
        std::fs::write(self.place.path(name), "").expect("a file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_on_a_full_disk_says_that_it_cannot_write_until_it_can() {
    let place = Place::new();
    let site = place.site_here(1500).await;
    let Some(disk) = SmallDisk::start(place) else { return };
    disk.fill();
    let long = "x".repeat(4000);
    let mut round = 0;
    let is_refused = |status: u16, body: &str| {
        round += 1;
        for id in 1..=20 {
            // Some of them are retired from the beginning.
            let _ = site.site().update("Shot", id, serde_json::json!({"description": format!("{round} {long}")}));
        }
        status == 503 && body.contains("not_writable") && body.contains("no room left")
    };
    assert!(disk.until("/readyz", is_refused), "it never said that it cannot write");
    disk.free();
    assert!(disk.until("/readyz", |status, _| status == 200), "it is not ready although there is room");
    assert_eq!(disk.end(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_program_holds_is_named_and_left_alone() {
    let place = Place::new();
    let _site = place.site_here(1500).await;
    place.run(&["job", "import"]).expect_code(0);
    let before = shots(&place);

    for name in ["store.sqlite", "state.sqlite"] {
        let holder = rusqlite::Connection::open(place.path("data").join(name)).expect("a database");
        holder.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        let said = [name, "another process is writing to it", "stop it, or try again"];
        place.run(&["job", "rebuild", "Shot"]).expect_code(75).says(&said);
        drop(holder);
    }
    place.run(&["job", "validateData"]).expect_code(0);
    assert_eq!(shots(&place), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_version_is_left_alone() {
    let place = Place::new();
    let _site = place.site_here(1500).await;
    place.run(&["job", "import"]).expect_code(0);
    let before = shots(&place);
    let version = |number: i64| {
        let connection = rusqlite::Connection::open(place.path("data/store.sqlite")).expect("a database");
        connection.pragma_update(None, "user_version", number).expect("a version");
    };
    version(9999);
    let said = ["store.sqlite", "newer sgcache", "format 9999", "another data_dir"];
    place.run(&["job", "validateCounts"]).expect_code(78).says(&said);
    place.run(&["find", "Shot"]).expect_code(78).says(&said);
    version(2);
    assert_eq!(shots(&place), before);
}

#[test]
fn a_data_directory_that_may_not_be_written_is_named() {
    let place = Place::new();
    // A file where the directory should be: refused for every user, root too.
    std::fs::write(place.path("data"), "mine").expect("a file");
    place.run(&["pipelines", "run"]).expect_code(78).says(&["data", "data_dir"]);
    assert_eq!(std::fs::read_to_string(place.path("data")).expect("a file"), "mine");
}

#[test]
fn an_address_that_is_taken_is_named_with_its_setting() {
    let place = Place::new();
    let _sim = place.sim(100, 0.0);
    let _taken = TcpListener::bind(&place.ops).expect("the port is free");
    place.run(&["pipelines", "run"]).expect_code(75).says(&[&place.ops, "listen.ops"]);
}

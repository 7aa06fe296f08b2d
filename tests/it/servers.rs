//! Real servers for the integration tests.
//!
//! One Elasticsearch per test process, started when the first test asks for it
//! and stopped by the kernel's parent-death signal when the process ends, however
//! it ends. Tests share it and keep apart by an index prefix of their own.
//! `tests/setup` fills the cache and names the variables; without them a suite
//! says once what it left out.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};

/// Returns the URL of the test process's Elasticsearch; `None`, said once per suite, when there is none.
pub fn elasticsearch(suite: &'static str) -> Option<&'static str> {
    static SERVER: OnceLock<String> = OnceLock::new();
    if std::env::var_os("SGCACHE_TEST_ELASTICSEARCH").is_none() {
        skipped(suite, "SGCACHE_TEST_ELASTICSEARCH is not set (eval \"$(tests/setup)\")");
        return None;
    }
    Some(SERVER.get_or_init(|| start_for_ever(&[])))
}

/// Says once per suite, past the capturing of the test harness, what was left out and why.
pub fn skipped(suite: &'static str, why: &str) {
    static SAID: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap();
    if said.get_or_insert_with(HashSet::new).insert(suite) {
        std::io::stderr().write_all(format!("skipped: {suite}: {why}\n").as_bytes()).unwrap();
    }
}

/// Returns the Python that the tests were given; a suite that has none says so.
pub fn python(suite: &'static str) -> Option<String> {
    named(suite, "SGCACHE_TEST_PYTHON")
}

/// Returns what a variable names; a suite that has none says so.
pub fn named(suite: &'static str, variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        skipped(suite, &format!("{variable} is not set (eval \"$(tests/setup)\")"));
    }
    value
}

/// Starts a server that lives as long as the process.
fn start_for_ever(settings: &[&str]) -> String {
    let (sender, receiver) = mpsc::channel();
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    // The parent-death signal is sent when the *thread* that started the server
    // ends, so this one stays, waiting for a server that outlives it.
    std::thread::spawn(move || {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let server = Elasticsearch::start(&run_directory(), &settings);
        sender.send(server.url.clone()).unwrap();
        server.wait();
    });
    receiver.recv().expect("Elasticsearch must start: its last words are above")
}

/// A server of a test's own, stopped when dropped. For tests that stop it or want other settings.
pub struct Elasticsearch {
    pub url: String,
    run: PathBuf,
    child: Child,
}

impl Elasticsearch {
    /// Starts the server in `run` with options of `tests/servers/elasticsearch` and waits until it can be used.
    ///
    /// It dies with the calling *thread*: call it from one that lives long enough.
    pub fn start(run: &std::path::Path, options: &[&str]) -> Self {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--pdeathsig", "TERM"]).arg(script());
        Self::launch(setpriv, run, options)
    }

    /// Starts a server that only [`Drop`] stops, so that any thread may start it.
    pub fn start_unbound(run: &std::path::Path, options: &[&str]) -> Self {
        Self::launch(Command::new(script()), run, options)
    }

    fn launch(mut command: Command, run: &std::path::Path, options: &[&str]) -> Self {
        let (flags, settings): (Vec<&str>, Vec<&str>) = options.iter().partition(|option| option.starts_with("--"));
        let mut child = command
            .args(flags)
            .arg(run)
            .args(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv of util-linux starts the server");
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let url = url.trim().to_owned();
        assert!(!url.is_empty(), "Elasticsearch did not start, see above");
        if url.starts_with("http://") {
            wait_for_yellow(&url);
        }
        Self { url, run: run.to_owned(), child }
    }

    /// Kills the server itself with SIGKILL, as a lost machine would.
    pub fn kill(self) {
        let pid = std::fs::read_to_string(self.run.join("pid")).unwrap();
        let killed = Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
        assert!(killed.success());
        self.wait();
    }

    fn wait(mut self) {
        let _ = self.child.wait();
    }
}

impl Drop for Elasticsearch {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let stopped = Command::new("kill").arg(self.child.id().to_string()).status();
        if stopped.is_ok_and(|status| status.success()) {
            let _ = self.child.wait();
        }
    }
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers/elasticsearch")
}

/// A fresh directory for one server, which its script removes at the end.
///
/// Directly below the system's temporary folder, because the server runs as
/// another user and must be able to walk there.
pub fn run_directory() -> PathBuf {
    std::env::temp_dir().join(format!("sgcache-test-{}-{:08x}", std::process::id(), rand::random::<u32>()))
}

fn wait_for_yellow(url: &str) {
    let health = format!("{url}/_cluster/health?wait_for_status=yellow&timeout=30s");
    let answer = blocking(async move { reqwest::Client::new().get(health).send().await });
    let status = answer.expect("the server answers").status();
    assert!(status.is_success(), "the server is not ready: {status}");
}

/// Runs a future on a thread of its own, so that it works inside and outside of a runtime.
pub fn blocking<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        scope.spawn(run).join().expect("the request does not panic")
    })
}

/// The index prefix of one test; its indices are deleted when it is dropped.
pub struct TestIndices {
    url: &'static str,
    prefix: String,
}

impl TestIndices {
    /// Returns a prefix that no other test uses.
    pub fn new(url: &'static str) -> Self {
        Self { url, prefix: format!("sgcache-t{:08x}", rand::random::<u32>()) }
    }

    /// Returns the prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns a name that begins with the prefix.
    pub fn name(&self, rest: &str) -> String {
        format!("{}-{rest}", self.prefix())
    }
}

impl Drop for TestIndices {
    fn drop(&mut self) {
        let base = self.url;
        let all = format!("{base}/{}*/_alias?expand_wildcards=all", self.prefix);
        // Best effort: what stays behind ends with the server.
        blocking(async move {
            let client = reqwest::Client::new();
            let Ok(answer) = client.get(all).send().await else {
                return;
            };
            let Ok(indices) = answer.json::<serde_json::Map<String, serde_json::Value>>().await else {
                return;
            };
            // By full name: wildcards are refused by default from 8 on.
            for name in indices.keys() {
                let _ = client.delete(format!("{base}/{name}")).send().await;
            }
        });
    }
}

//! The built program, run as a user runs it: in a directory of its own, with
//! real processes on loopback, stopped by process id.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;
use sgcache::sim::{Sim, SimHandle, SimSettings};

use crate::waiting::Wait;

/// A directory with the shipped configuration, adapted to free ports.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub site: String,
    pub ops: String,
    pub api: String,
}

/// A process that is stopped when dropped.
pub struct Running {
    child: Child,
    /// Reads what it says on stderr: a pipe that is not read would stop the process.
    said: Option<JoinHandle<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a command, and reads what it says on stderr.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program runs");
        let mut stderr = child.stderr.take().expect("stderr");
        let said = std::thread::spawn(move || {
            let mut said = Vec::new();
            // What was read before a failure is what there is.
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        Self { child, said: Some(said) }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill").success());
    }

    /// Tells whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_some()
    }

    /// Sends a signal that does not end it: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill").success());
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.child.kill().expect("the process was there");
        self.child.wait().expect("the process ends");
    }

    /// Sends a signal and waits for the end.
    pub fn signalled(mut self, signal: &str) -> Ended {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill").success());
        let mut stdout = String::new();
        self.child.stdout.take().expect("stdout").read_to_string(&mut stdout).expect("text");
        let stderr = self.said.take().expect("stderr is read").join().expect("stderr was read");
        let code = self.child.wait().expect("the process ends").code();
        Ended { code, stdout, stderr }
    }

    /// Sends SIGTERM and waits for the end; returns the exit code and what was
    /// said on stderr.
    pub fn terminate(self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        self.wait()
    }

    /// Waits for the end, as [`Running::terminate`] does, of a process that ends by itself.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("the process ends");
        let said = self.said.take().map(|said| said.join().expect("a reader")).unwrap_or_default();
        (status.code(), said)
    }
}

/// Returns an address that was free a moment ago.
pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string()
}

impl Place {
    /// Copies the shipped configuration and changes nothing but the ports.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (site, ops, api) = (free_address(), free_address(), free_address());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for sub in ["pipelines", "entityConfig"] {
            copy_dir(&root.join(sub), &dir.path().join(sub));
        }
        // Its hourly runs would stand among those that a test looks at, by the hour of the day.
        std::fs::remove_file(dir.path().join("pipelines/scans.yaml")).expect("a shipped file");
        let config = std::fs::read_to_string(root.join("config.yaml")).expect("config.yaml");
        let config =
            config.replace("127.0.0.1:8190", &site).replace("127.0.0.1:9187", &ops).replace("127.0.0.1:8010", &api);
        std::fs::write(dir.path().join("config.yaml"), config).expect("a file");
        Self { dir, site, ops, api }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces a text in a file of the place, which must occur.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.contains(from), "{name} holds no `{from}`");
        std::fs::write(path, text.replacen(from, to, 1)).expect("a file");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sgcache"));
        command.args(args).current_dir(self.dir.path()).env_remove("SGCACHE_CONFIG").env_remove("SGCACHE_LOG");
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        Ended::from(self.command(args).output().expect("the program runs"))
    }

    /// Starts the simulated site and waits for its line.
    pub fn sim(&self, entities: u32, edits: f64) -> Running {
        let (entities, edits) = (entities.to_string(), edits.to_string());
        let args = ["sim", "--listen", &self.site, "--entities", &entities, "--edits", &edits];
        let mut child = self.command(&args).stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        assert!(line.contains("ready"), "{line}");
        Running { child, said: None }
    }

    /// Starts a simulated site in this process, on the address of the place.
    pub async fn site_here(&self, entities: usize) -> SimHandle {
        let listen = self.site.parse().expect("an address");
        Sim::start(SimSettings { listen, entities, ..Default::default() }).await.expect("a site")
    }

    /// Makes a place with a replica of a site.
    pub async fn imported(entities: usize) -> (Self, SimHandle) {
        let place = Self::new();
        let site = place.site_here(entities).await;
        place.run(&["job", "import"]).expect_code(0);
        (place, site)
    }

    /// Starts a command that runs until it is stopped.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::spawn(self.command(args).stdout(Stdio::piped()))
    }

    /// Starts a demo on addresses of its own and waits until it is healthy and the cache has
    /// answered every kind of question.
    pub fn answering_demo(&self, args: &[&str]) -> Running {
        let listen = free_address();
        let addresses = ["--listen", &listen, "--ops", &self.ops, "--api", &self.api];
        let demo = self.start(&[&["demo"][..], &addresses, args].concat());
        self.until("/api/v1/status", |_, body| {
            let status: Value = serde_json::from_str(body).unwrap_or_default();
            let methods = status["ledger"]["methods"].as_array().cloned().unwrap_or_default();
            let answered =
                |name: &str| methods.iter().any(|one| one["method"] == name && one["cache_p50_ms"].is_number());
            status["health"]["code"] == "ok" && answered("read") && answered("summarize")
        });
        demo
    }

    /// Starts the daemon and waits until it is ready.
    pub fn daemon(&self) -> Running {
        self.daemon_with(&[])
    }

    /// Does the same with variables in its environment.
    pub fn daemon_with(&self, variables: &[(&str, &str)]) -> Running {
        let mut command = self.command(&["pipelines", "run"]);
        let mut running = Running::spawn(command.envs(variables.iter().copied()));
        self.until("/readyz", |status, answer| {
            if let Some(status) = running.child.try_wait().expect("a status") {
                let said = running.said.take().map(|said| said.join().expect("a reader")).unwrap_or_default();
                panic!("the daemon ended with {status}: {said}; last answer: {answer}");
            }
            status == 200
        });
        running
    }

    /// Asks the ops listener until `enough(status, body)`; status 0 is no answer.
    #[track_caller]
    pub fn until(&self, path: &str, mut enough: impl FnMut(u16, &str) -> bool) -> String {
        let url = format!("http://{}{path}", self.ops);
        let wait = Wait::begin();
        loop {
            let (status, body) = get(&url).unwrap_or_default();
            if enough(status, &body) {
                return body;
            }
            wait.pause(|| format!("{path} says {status} {body}"));
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ended {
    /// Returns stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless each of these words was said on stderr, or when the key was.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("sgcache-sim"), "the key was printed:\n{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// Asks a listener of ours; `None` when nobody answers.
pub fn get(url: &str) -> Option<(u16, String)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/')?;
    let mut stream = std::net::TcpStream::connect(host).ok()?;
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())?;
    Some((status, body))
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

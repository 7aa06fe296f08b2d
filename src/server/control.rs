//! The token with which a local user may change things in the daemon.
//!
//! The daemon writes `control.json` into its data directory, readable by its
//! own user only; `sgcache pipelines trigger` reads it. A user who can read the
//! file could also change the data beside it, so the token gives nothing away.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::private_files;

const FILE: &str = "control.json";

/// Where the daemon listens, and what it wants to be shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Address of the ops listener.
    pub address: SocketAddr,
    /// Bearer token for everything that is not a read.
    pub token: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Whether the listener speaks TLS.
    #[serde(default)]
    pub tls: bool,
}

/// Shows everything but the token.
impl fmt::Debug for Control {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Control({}, pid {}, token ***)", self.address, self.pid)
    }
}

/// Why `control.json` could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct ControlError {
    path: PathBuf,
    source: io::Error,
}

impl ControlError {
    /// Returns whether there is no file, which means that no daemon runs here.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl Control {
    /// Returns a control with a fresh token for this process.
    pub fn new(address: SocketAddr) -> Self {
        let mut random = [0_u8; 24];
        rand::rng().fill_bytes(&mut random);
        let token = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { address, token, pid: std::process::id(), tls: false }
    }

    /// Says whether the listener speaks TLS.
    #[must_use]
    pub fn with_tls(self, tls: bool) -> Self {
        Self { tls, ..self }
    }

    /// Returns the URL of a path of the listener.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Writes the file, mode 0600 from its first moment, replacing that of an earlier daemon.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written.
    pub fn write(&self, data_dir: &Path) -> Result<(), ControlError> {
        let path = data_dir.join(FILE);
        let fresh = data_dir.join(format!("{FILE}.{}", self.pid));
        let write = || -> io::Result<()> {
            let mut file = private_files::open(&fresh, fs::OpenOptions::new().write(true).truncate(true))?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.write_all(b"\n")?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|source| ControlError { path: path.clone(), source })
    }

    /// Reads the file of the daemon that works in `data_dir`.
    ///
    /// # Errors
    ///
    /// When there is none, or when it cannot be read.
    pub fn read(data_dir: &Path) -> Result<Self, ControlError> {
        let path = data_dir.join(FILE);
        let read = || -> io::Result<Self> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
        read().map_err(|source| ControlError { path: path.clone(), source })
    }

    /// Removes the file if it is still ours.
    pub fn remove(&self, data_dir: &Path) {
        if Self::read(data_dir).is_ok_and(|there| there == *self) {
            // What is left is a token that no process accepts.
            let _ = fs::remove_file(data_dir.join(FILE));
        }
    }

    /// Returns whether an `Authorization` header shows the token.
    pub fn accepts(&self, header: Option<&str>) -> bool {
        let shown = header.and_then(|header| header.strip_prefix("Bearer ")).unwrap_or_default();
        is_same(shown.as_bytes(), self.token.as_bytes())
    }
}

/// Compares in a time that does not tell how much of the token was right.
pub(super) fn is_same(shown: &[u8], token: &[u8]) -> bool {
    let differing = shown.iter().zip(token).fold(0, |sum, (one, other)| sum | (one ^ other));
    shown.len() == token.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> Control {
        Control::new(SocketAddr::from(([127, 0, 0, 1], 9187)))
    }

    #[test]
    fn only_the_whole_token_is_accepted() {
        let control = control();
        let token = &control.token;
        assert!(control.accepts(Some(&format!("Bearer {token}"))));
        for bad in ["", "Bearer ", "Bearer x", token, &format!("Bearer {}", &token[..47])] {
            assert!(!control.accepts(Some(bad)), "{bad}");
        }
        assert!(!control.accepts(None));
    }

    #[test]
    fn every_daemon_has_a_token_of_its_own_and_never_prints_it() {
        let (one, other) = (control(), control());
        assert_ne!(one.token, other.token);
        assert_eq!(one.token.len(), 48);
        assert!(!format!("{one:?}").contains(&one.token));
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let control = control();
        control.write(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Control::read(dir.path()).unwrap(), control);
    }

    #[test]
    fn a_daemon_that_ends_takes_away_only_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (control(), control());
        old.write(dir.path()).unwrap();
        new.write(dir.path()).unwrap();
        old.remove(dir.path());
        assert_eq!(Control::read(dir.path()).unwrap(), new);
        new.remove(dir.path());
        assert!(Control::read(dir.path()).unwrap_err().is_missing());
    }
}

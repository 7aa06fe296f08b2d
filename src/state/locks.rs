//! Locks between the processes of one data directory, by name.
//!
//! A lock belongs to an open file, so the system frees it when its process ends,
//! however it ends: what is locked proves that its owner lives. The files lie in
//! `locks/` and stay there, except those of runs, whose names never come again: to
//! remove a file that another process may have opened would let two hold one name.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Result, State, StateError, on_blocking_thread};
use crate::private_files;

/// A lock that is held until this is dropped or the process ends.
#[derive(Debug)]
pub struct ProcessLock {
    /// Closing it frees the lock.
    _file: File,
    /// Removed with the lock, for names that are used once.
    remove: Option<PathBuf>,
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        if let Some(path) = &self.remove {
            // What stays behind is not locked, and that alone counts.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl State {
    /// Takes the lock of a name; `None` while another process, or another handle of
    /// this one, holds it. The name is part of a file name.
    ///
    /// # Errors
    ///
    /// When the data directory cannot be written.
    pub async fn try_lock(&self, name: &str) -> Result<Option<ProcessLock>> {
        let path = self.lock_file(name);
        on_blocking_thread(move || take(&path, None)).await
    }

    /// Takes the lock that proves that the owner of a run lives.
    ///
    /// # Errors
    ///
    /// [`StateError::Locked`] when the run has an owner.
    pub async fn own_run(&self, run_id: &str) -> Result<ProcessLock> {
        let path = self.lock_file(&run_lock(run_id));
        on_blocking_thread(move || take(&path, Some(path.clone()))?.ok_or(StateError::Locked { path })).await
    }

    /// Tells whether the process that runs this run lives.
    ///
    /// # Errors
    ///
    /// When the data directory cannot be read.
    pub async fn is_run_owned(&self, run_id: &str) -> Result<bool> {
        let path = self.lock_file(&run_lock(run_id));
        on_blocking_thread(move || is_locked(&path)).await
    }

    fn lock_file(&self, name: &str) -> PathBuf {
        self.directory().join("locks").join(format!("{name}.lock"))
    }
}

fn take(path: &Path, remove: Option<PathBuf>) -> Result<Option<ProcessLock>> {
    let failed = |source| StateError::Directory { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        private_files::create_directory(directory).map_err(failed)?;
    }
    let file = private_files::open(path, File::options().read(true).write(true)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(ProcessLock { _file: file, remove })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn is_locked(path: &Path) -> Result<bool> {
    let failed = |source| StateError::Directory { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn run_lock(run_id: &str) -> String {
    format!("run-{run_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_ends_when_it_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = State::open(directory.path()).await.expect("a state");
        let held = state.try_lock("pipeline-a").await.expect("an answer").expect("a free name");
        assert!(state.try_lock("pipeline-a").await.expect("an answer").is_none());
        assert!(state.try_lock("pipeline-b").await.expect("an answer").is_some());
        drop(held);
        assert!(state.try_lock("pipeline-a").await.expect("an answer").is_some());

        let owned = state.own_run("R").await.expect("no owner yet");
        assert!(state.is_run_owned("R").await.expect("an answer"));
        assert!(matches!(state.own_run("R").await, Err(StateError::Locked { .. })));
        drop(owned);
        assert!(!state.is_run_owned("R").await.expect("an answer"));
    }
}

//! Files that only their owner reads: whatever is written below the data directory.
//!
//! The directory is 0700 and its files are 0600 from their first moment, whatever the
//! umask says; what an earlier version left open is tightened when it is opened. On
//! systems without such modes this does nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Names, or their beginnings, of the files that are tightened in the data directory.
/// Others may share it, so the rest is left as it is.
const OWN_FILES: &[&str] = &["state.sqlite", "store.sqlite", "audit.ndjson", "control.json", "leader.lock"];
/// Directories in the data directory that are ours with everything in them.
const OWN_DIRECTORIES: &[&str] = &["locks", "run-logs"];

/// Makes a directory that only its owner enters, and tightens it and the files of ours
/// that are there.
///
/// # Errors
///
/// When it cannot be made. A directory or file of another user is left as it is, with
/// a warning.
pub fn create_directory(path: &Path) -> io::Result<()> {
    make_directory(path)?;
    tighten(path, 0o700);
    tighten_files(path, |name| OWN_FILES.iter().any(|own| name.starts_with(own)))?;
    let is_directory = |own: &PathBuf| fs::symlink_metadata(own).is_ok_and(|found| found.is_dir());
    for own in OWN_DIRECTORIES.iter().map(|name| path.join(name)).filter(is_directory) {
        tighten(&own, 0o700);
        tighten_files(&own, |_| true)?;
    }
    Ok(())
}

/// Makes a directory and those above it that are missing, for their owner alone from the
/// first moment.
#[cfg(unix)]
fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Tightens the files of a directory that are ours.
fn tighten_files(directory: &Path, is_own: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_str().is_some_and(&is_own) {
            tighten(&entry.path(), 0o600);
        }
    }
    Ok(())
}

/// Opens a file, made if need be, that only its owner reads and writes.
///
/// # Errors
///
/// When it cannot be opened, or is a symbolic link: it would lead to a file that is not
/// ours, and be written over.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        let words = format!("{} is a symbolic link: remove it, or move the file that it names here", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    }
    options.create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    let file = options.open(path)?;
    tighten(path, 0o600);
    Ok(file)
}

/// Makes the file of a database before SQLite does, which would ask the umask. Its
/// `-wal` and `-shm` have the mode of the file itself.
///
/// # Errors
///
/// When it cannot be opened.
pub fn create_database(path: &Path) -> io::Result<()> {
    open(path, OpenOptions::new().append(true)).map(drop)
}

/// What tells a file from another one of the same name.
pub type FileIdentity = (u64, u64);

/// Returns the file that a path leads to.
#[cfg(unix)]
pub fn identity(path: &Path) -> Option<FileIdentity> {
    use std::os::unix::fs::MetadataExt;

    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Takes from a file or directory what others may do with it.
#[cfg(unix)]
fn tighten(path: &Path, most: u32) {
    use std::os::unix::fs::PermissionsExt;

    let Ok(found) = fs::metadata(path) else { return };
    let mode = found.permissions().mode() & 0o7777;
    if mode & !most == 0 {
        return;
    }
    if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(mode & most)) {
        tracing::warn!(path = %path.display(), %error, "others can read this and its mode could not be changed");
    }
}

#[cfg(not(unix))]
fn tighten(_path: &Path, _most: u32) {}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    #[test]
    fn what_others_could_read_is_tightened_and_what_is_not_ours_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        fs::create_dir(&data).expect("a directory");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("a mode");
        for name in ["state.sqlite", "state.sqlite-wal", "audit.ndjson.1", "config.yaml"] {
            fs::write(data.join(name), "x").expect("a file");
            fs::set_permissions(data.join(name), fs::Permissions::from_mode(0o644)).expect("a mode");
        }
        create_directory(&data).expect("a directory");
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("state.sqlite-wal")), 0o600);
        assert_eq!(mode(&data.join("audit.ndjson.1")), 0o600);
        assert_eq!(mode(&data.join("config.yaml")), 0o644);
        open(&data.join("fresh"), OpenOptions::new().append(true)).expect("a file");
        assert_eq!(mode(&data.join("fresh")), 0o600);
    }

    #[test]
    fn a_directory_above_is_for_its_owner_alone_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        create_directory(&data.join("run-logs")).expect("a directory");
        assert_eq!(mode(&data), 0o700);
    }

    #[test]
    fn no_link_is_followed_out_of_the_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let (data, other) = (directory.path().join("data"), directory.path().join("other"));
        create_directory(&data).expect("a directory");
        fs::create_dir(&other).expect("a directory");
        fs::write(other.join("file"), "precious").expect("a file");
        for (path, most) in [(other.clone(), 0o755), (other.join("file"), 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(most)).expect("a mode");
        }
        std::os::unix::fs::symlink(other.join("file"), data.join("leader.lock")).expect("a link");
        std::os::unix::fs::symlink(&other, data.join("run-logs")).expect("a link");
        let error = open(&data.join("leader.lock"), OpenOptions::new().append(true)).expect_err("a link");
        assert!(error.to_string().contains("leader.lock is a symbolic link"), "{error}");
        create_directory(&data).expect("a directory");
        assert_eq!((mode(&other), mode(&other.join("file"))), (0o755, 0o644));
        assert_eq!(fs::read_to_string(other.join("file")).expect("a file"), "precious");
    }
}

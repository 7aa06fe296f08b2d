//! The key of the digests of credentials: `credentials.key` in the data directory.
//!
//! It is drawn at the first start and kept, so that a credential has the same digest
//! after a restart. With the key and `state.sqlite`, guesses of passwords can be checked
//! offline; so a file that others could read is worth nothing any more, and is replaced
//! by a new key, as is a damaged one. Records under the old key then match no credential.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use ring::hmac;

/// The file in the data directory.
pub(super) const FILE_NAME: &str = "credentials.key";
/// The length of a key: that of the output of SHA-256.
const KEY_BYTES: usize = 32;
/// Only the owner reads and writes.
const MODE: u32 = 0o600;

/// Returns the key of a data directory, and whether it was there before.
///
/// When it can neither be read nor written, the key lives as long as the process:
/// verified credentials are then not known after a restart, and nothing else is lost.
pub(super) fn load(directory: &Path) -> (hmac::Key, bool) {
    let path = directory.join(FILE_NAME);
    let read = read(&path);
    let why = match read {
        Ok(key) => return (hmac::Key::new(hmac::HMAC_SHA256, &key), true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(error),
    };
    if let Some(error) = why {
        tracing::warn!(%error, path = %path.display(), "key of credentials replaced");
    }
    let key: [u8; KEY_BYTES] = rand::random();
    if let Err(error) = replace(&path, &key) {
        let effect = "verified credentials are not known after a restart";
        tracing::warn!(%error, path = %path.display(), effect, "key of credentials not written");
    }
    (hmac::Key::new(hmac::HMAC_SHA256, &key), false)
}

fn read(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let refuse = |words: String| io::Error::new(io::ErrorKind::InvalidData, words);
    // A link could lead to a file of another owner.
    let found = std::fs::symlink_metadata(path)?;
    let mode = found.permissions().mode() & 0o777;
    if !found.is_file() {
        return Err(refuse("it is not a regular file".into()));
    }
    if mode & 0o077 != 0 {
        return Err(refuse(format!("its mode is {mode:04o}, so others may know the key")));
    }
    let file = File::open(path)?;
    if file.metadata()?.ino() != found.ino() {
        return Err(refuse("it was replaced while it was opened".into()));
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    bytes.try_into().map_err(|bytes: Vec<u8>| refuse(format!("it holds {} bytes, not {KEY_BYTES}", bytes.len())))
}

/// Writes a key beside the file and moves it there: no reader sees half of one.
fn replace(path: &Path, key: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("key.{:016x}", rand::random::<u64>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary)?;
    let written = file.write_all(key).and_then(|()| file.sync_all());
    let moved = written.and_then(|()| std::fs::rename(&temporary, path));
    if moved.is_err() {
        // The error of the write says what is wrong; this file is only litter.
        let _ = std::fs::remove_file(&temporary);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::super::credential::digest;
    use super::*;

    fn digest_in(directory: &Path) -> ([u8; 32], bool) {
        let (key, known) = load(directory);
        (digest(&key, &[b"x"]), known)
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    }

    #[test]
    fn a_key_is_kept_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = digest_in(directory.path());
        assert!(!first.1);
        let path = directory.path().join(FILE_NAME);
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(digest_in(directory.path()), (first.0, true));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn a_damaged_or_readable_key_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE_NAME);
        let mut seen = vec![digest_in(directory.path()).0];
        let damages: [&dyn Fn(); 4] = [
            &|| std::fs::write(&path, b"short").expect("a file"),
            &|| std::fs::write(&path, [7; 33]).expect("a file"),
            &|| set_mode(&path, 0o640),
            &|| {
                std::fs::rename(&path, directory.path().join("elsewhere")).expect("a file");
                std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).expect("a link");
            },
        ];
        for damage in damages {
            damage();
            let (digest, known) = digest_in(directory.path());
            assert!(!known && !seen.contains(&digest), "a new key");
            assert_eq!(digest_in(directory.path()), (digest, true));
            seen.push(digest);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_has_a_key_all_the_same() {
        let (_, known) = load(Path::new("/nonexistent/directory"));
        assert!(!known);
    }
}

//! The directory of entity configs: reads it, and writes what is generated.
//!
//! What a file says and whether it fits a site is known to `entity_config`, not here.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use crate::entity::EntityType;
use crate::entity_config::{EntityConfigFile, Exclusions, MalformedConfig, generate};
use crate::schema::Schema;

/// Why a directory of entity configs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EntityConfigError {
    /// The directory or a file in it cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The reason of the system.
        #[source]
        source: io::Error,
    },
    /// A file is not an entity config.
    #[error(transparent)]
    Malformed(#[from] MalformedConfig),
}

/// Reads `<dir>/*.json`, sorted by name.
///
/// Every file is read: the second element lists all problems at once.
///
/// # Errors
///
/// [`EntityConfigError::Unreadable`] for the directory itself.
pub fn read_all(dir: &Path) -> Result<(Vec<EntityConfigFile>, Vec<EntityConfigError>), EntityConfigError> {
    let unreadable = |source| EntityConfigError::Unreadable { path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(unreadable)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match read(&path) {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(problem),
        }
    }
    Ok((files, problems))
}

fn read(path: &Path) -> Result<EntityConfigFile, EntityConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| EntityConfigError::Unreadable { path: path.to_owned(), source })?;
    Ok(EntityConfigFile::parse(path, text)?)
}

/// What happened to the file of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file says what would be generated.
    Unchanged,
    /// There was no file; `true` when it was written.
    New(bool),
    /// The file said something else; `true` when it was replaced, and the old one
    /// kept beside it with a `~` behind its name.
    Differs(bool),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "unchanged",
            Self::New(true) => "written",
            Self::New(false) => "would be written",
            Self::Differs(true) => "replaced, the old file is kept with `~` behind its name",
            Self::Differs(false) => "differs from the schema of the site",
        })
    }
}

/// Why an entity config could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The site does not have the type.
    #[error("{0}")]
    UnknownType(String),
    /// The file that is there is malformed; it is left as it is.
    #[error(transparent)]
    Existing(#[from] EntityConfigError),
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The reason of the system.
        source: io::Error,
    },
}

/// Generates the config of a type, keeping filters, mappings and `optional` of a file
/// that is there, and writes it when that is wanted.
///
/// # Errors
///
/// [`GenerateError`]; nothing was changed then.
pub fn refresh(
    dir: &Path,
    schema: &Schema,
    entity_type: &EntityType,
    exclusions: &Exclusions,
    write: bool,
) -> Result<Change, GenerateError> {
    let mut config = generate(schema, entity_type, exclusions).map_err(GenerateError::UnknownType)?;
    let path = dir.join(format!("{entity_type}.json"));
    let unwritable = |source| GenerateError::Unwritable { path: path.clone(), source };
    let existing = if path.exists() { Some(read(&path)?.config) } else { None };
    if let Some(existing) = &existing {
        config.keep_edits(existing);
        if *existing == config {
            return Ok(Change::Unchanged);
        }
    }
    if write {
        fs::create_dir_all(dir).map_err(unwritable)?;
        if existing.is_some() {
            fs::rename(&path, dir.join(format!("{entity_type}.json~"))).map_err(unwritable)?;
        }
        let text = serde_json::to_string_pretty(&config).map_err(|error| unwritable(error.into()))?;
        fs::write(&path, text + "\n").map_err(unwritable)?;
    }
    Ok(if existing.is_some() { Change::Differs(write) } else { Change::New(write) })
}

//! The file in which the daemon keeps the last round that it closed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::pipeline::read_journal;
use crate::wire::Resume;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory or file cannot be used.
    #[error("cannot open the journal {}: {error}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Another daemon has it.
    #[error("the journal {} is in use by another solond: give each daemon a [state] directory of its own", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Its content is damaged.
    #[error(
        "the journal {} is damaged: {why}; if the workers start from a checkpoint anyway, remove it", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        why: &'static str,
    },
}

/// Opens the journal of a job in a state directory (made if it is not there), and reads it.
///
/// # Errors
/// If the file cannot be read and written, or is damaged.
pub fn open(directory: &Path, job: &str) -> Result<(File, Option<Resume>), JournalError> {
    let path = directory.join(format!("{job}.journal"));
    let failed = |error| JournalError::Open { path: path.clone(), error };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    // Held as long as the file is open.
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(JournalError::InUse { path }),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    let resume = read_journal(&bytes).map_err(|why| JournalError::Damaged { path: path.clone(), why })?;
    Ok((file, resume))
}

//! The page that shows what a lab's records say.

use std::path::{Path, PathBuf};

use super::record::RecordError;

/// Writes the report of the records in `out`; where it is.
///
/// # Errors
/// If records cannot be read, or the page cannot be written.
pub fn write(out: &Path) -> Result<PathBuf, RecordError> {
    let path = out.join("report.html");
    std::fs::write(&path, "").map_err(|error| RecordError::Io { path: path.clone(), error })?;
    Ok(path)
}

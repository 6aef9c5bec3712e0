//! A store that nobody has open: looking through it, and carrying what can be read into a new one.
//!
//! Both block, and need no runtime: they are for the command line, or for `tokio::task::spawn_blocking`. There is no system that
//! could do something else meanwhile, so there is nothing to await.

use std::path::{Path, PathBuf};

use crate::durable::RECORDS;
use crate::error::{CheckError, SalvageError};
use crate::store::salvage::{self, CheckReport, SalvageReport};

/// Looks through the store in a directory: its journal, its engine, its pages, and every record in them that can be read without
/// the program's own types. What messages and state mean is not looked at. `Ok` means that all of it was looked at; what is wrong
/// is in the [findings](CheckReport::findings), and without one the store is whole.
///
/// Nothing of the store is changed, not a byte, and it is locked meanwhile: a store in use is refused. An engine changes its files when
/// it opens them, so it is copied first: the directory for temporary files (`TMPDIR`) needs room for twice the engine's files and
/// 70 MiB. What of the journal is not in the engine yet is held in memory, as after an unclean exit by
/// [`System::open`](crate::System::open).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("data");
/// # let system = steadfast::System::builder().ballast(0).open(&path).await?;
/// # system.shutdown(std::time::Duration::from_secs(60)).await?;
/// let report = steadfast::check(&path)?;
/// for finding in &report.findings {
///     println!("{finding}");
/// }
/// assert!(!report.has_losses());
/// # Ok(()) }
/// ```
///
/// # Errors
/// There is no store, it is in use, or there is no room for a copy of its engine. Damage is no error.
pub fn check(path: impl AsRef<Path>) -> Result<CheckReport, CheckError> {
    Ok(salvage::check_directory(path.as_ref(), &RECORDS)?)
}

/// Carries what can be read of a store into a new one, in `to`: a directory that is empty or still to be made.
/// [`System::open`](crate::System::open) then opens it as any other. The old store is not changed, and is locked meanwhile. Blocks, as
/// [`check`] does; see there.
///
/// Carried is the world up to the first hole in it: letters, dead letters, the schedule, state, topics with their events and the
/// places of their readers, dedup marks, attempts and suspicions. Commits behind a hole in the journal are not, for they build on
/// what is missing. `Ok` means that the new store is durable; what was not carried is in the report's
/// [findings](CheckReport::findings), [messages](CheckReport::lost_messages) and [commits](CheckReport::lost_commits).
///
/// `to` needs room for what is carried and for another copy of the engine, which is removed at the end.
///
/// # Errors
/// There is no store, it is in use, `to` is not empty or lies in it, or there is no room. Then nothing was carried, what is in `to` is no
/// store, and it may be removed.
pub fn salvage(path: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<SalvageReport, SalvageError> {
    let (path, to) = (path.as_ref(), to.as_ref());
    if lies_in(path, to) {
        return Err(SalvageError::Inside { path: path.into(), to: to.into() });
    }
    Ok(salvage::salvage_directory(path, to, &RECORDS)?)
}

/// Whether a directory that may be still to be made lies below another one.
fn lies_in(path: &Path, to: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let whole: PathBuf = std::path::absolute(to).unwrap_or_else(|_| to.into());
    let known = whole.ancestors().skip(1).find_map(|part| part.canonicalize().ok());
    known.is_some_and(|known| known.starts_with(&path))
}

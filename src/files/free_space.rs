//! How much the disk of a folder takes.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes that this user may still write to the file system of `folder`.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The device that a file or folder is on.
pub(crate) fn device(path: &Path) -> io::Result<u64> {
    Ok(path.metadata()?.dev())
}

/// The folder of SQLite's temporary files: the first that exists, in SQLite's order.
pub(crate) fn sqlite_temporary_folder(variable: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> PathBuf {
    let named = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(variable).map(PathBuf::from);
    let usual = ["/var/tmp", "/usr/tmp", "/tmp"].into_iter().map(PathBuf::from);
    named.chain(usual).find(|folder| folder.is_dir()).unwrap_or_else(|| PathBuf::from("."))
}

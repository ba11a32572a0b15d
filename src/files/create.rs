//! Creates files and folders for their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use tempfile::TempDir;

/// Creates a folder, and the missing ones above it. An existing folder stays as it is.
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(path)
}

/// Creates a folder in `parent` with a name that begins with `prefix`. It is removed when the value is dropped.
pub(crate) fn private_folder_in(parent: &Path, prefix: &str) -> io::Result<TempDir> {
    let private = Permissions::from_mode(PRIVATE_FOLDER);
    tempfile::Builder::new().prefix(prefix).permissions(private).tempdir_in(parent)
}

/// Writes a file, and replaces the content of an existing one, which others can then no longer change.
pub(crate) fn write_private(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    create_private_file(path)?.write_all(content.as_ref())
}

/// Opens an empty file for writing. Others can no longer change an existing one.
pub(crate) fn create_private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE_FILE).open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & OTHERS_CHANGE != 0 {
        file.set_permissions(Permissions::from_mode(mode & !OTHERS_CHANGE))?;
    }
    Ok(file)
}

/// Lets other users read a folder with everything in it, and change nothing: programs of a container may have another
/// user's id.
pub(crate) fn allow_reading(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(READABLE_FOLDER))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            allow_reading(&path)?;
        } else if kind.is_file() {
            fs::set_permissions(&path, Permissions::from_mode(READABLE_FILE))?;
        }
    }
    Ok(())
}

/// The write permissions of the group and of others.
pub(super) const OTHERS_CHANGE: u32 = 0o022;
const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const READABLE_FOLDER: u32 = 0o755;
const READABLE_FILE: u32 = 0o644;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_change_is_closed_when_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        write_private(&path, "long content").unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        write_private(&path, "short").unwrap();
        assert_eq!((mode(), fs::read_to_string(&path).unwrap().as_str()), (0o644, "short"));
    }
}

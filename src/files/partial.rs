//! A file that appears under its name only when it is whole.
//!
//! Until then it has a hidden name of its own in the same folder: `.NAME.RANDOM.partial`. It is removed when the value is
//! dropped. What a killed process left is removed by the next one that writes the same file.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;

/// A file in progress. Readers of its path see the file that was there before.
pub(crate) struct PartialFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl PartialFile {
    /// An empty file that will be at `path`. Removes what killed processes left of the same file.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let prefix = prefix(name);
        remove_abandoned(folder, &prefix);
        let file = tempfile::Builder::new().prefix(&prefix).suffix(SUFFIX).tempfile_in(folder)?;
        // Only this lock tells that the file is in use, and only that is what it is for.
        let _ = file.as_file().try_lock();
        Ok(Self { file, path: path.to_owned() })
    }

    /// The file, to write to.
    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Gives the file its name, once it is on the disk. Replaces an existing one.
    pub(crate) fn complete(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(self.path)?;
        Ok(())
    }
}

fn prefix(name: &OsStr) -> String {
    format!(".{}.", name.to_string_lossy())
}

/// Removes the files that no process writes any more. A file that can't be removed costs space only.
fn remove_abandoned(folder: &Path, prefix: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(SUFFIX) && is_abandoned(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return false };
    let age = file.metadata().and_then(|found| found.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > MAX_UNLOCKED_AGE) && file.try_lock().is_ok()
}

const SUFFIX: &str = ".partial";
/// A new file may not be locked yet.
const MAX_UNLOCKED_AGE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::SystemTime;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_whole_and_leaves_nothing_when_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        fs::write(&path, "before").unwrap();
        let mut file = PartialFile::create(&path).unwrap();
        file.file().write_all(b"after").unwrap();
        assert_eq!((names(folder.path()).len(), fs::read_to_string(&path).unwrap().as_str()), (2, "before"));
        file.complete().unwrap();
        drop(PartialFile::create(&path).unwrap());
        assert_eq!((names(folder.path()), fs::read_to_string(&path).unwrap().as_str()), (vec!["rows".into()], "after"));
        assert!(PartialFile::create(Path::new("/")).is_err());
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_a_file_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("rows"), SystemTime::now() - 2 * MAX_UNLOCKED_AGE);
        let left = folder.path().join(".rows.123abc.partial");
        for other in [".rows.new.partial", ".other.123abc.partial"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        File::create(&left).unwrap().set_modified(old).unwrap();
        let mut in_use = PartialFile::create(&path).unwrap();
        assert!(!left.exists() && names(folder.path()).len() == 3);
        in_use.file().set_modified(old).unwrap();
        drop(PartialFile::create(&path).unwrap());
        in_use.complete().unwrap();
        assert_eq!(names(folder.path()), [".other.123abc.partial", ".rows.new.partial", "rows"]);
    }
}

//! The folder of the files that a command's environment names: private, and removed with the program that made it.
//!
//! A program that is killed leaves its folder behind. The next one removes it, once no process is left that may read its files.

use super::processes::{ProcessMark, in_environment};
use crate::files::{private_folder_in, write_private};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with an absolute path in the system's folder for temporary files.
#[derive(Debug)]
pub(crate) struct RunFolder(TempDir);

impl RunFolder {
    /// Creates a folder, and removes those of programs that were killed.
    pub(crate) fn create() -> io::Result<Self> {
        // TMPDIR may be relative, and a command may change its working directory.
        Self::create_in(&std::path::absolute(std::env::temp_dir())?)
    }

    fn create_in(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent);
        let folder = private_folder_in(parent, PREFIX)?;
        if let Some(owner) = ProcessMark::own() {
            write_private(&folder.path().join(OWNER_FILE), serde_json::to_vec(&owner)?)?;
        }
        Ok(Self(folder))
    }

    /// The folder's path.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Removes the folders of this user's programs that have ended. Errors are ignored: another program may be removing them too.
fn remove_abandoned(parent: &Path) {
    let folders = fs::read_dir(parent).into_iter().flatten().flatten();
    let folders = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for folder in folders.map(|entry| entry.path()).filter(is_abandoned) {
        let _ = fs::remove_dir_all(folder);
    }
}

fn is_abandoned(folder: &PathBuf) -> bool {
    // Other users of the machine may create folders with such names.
    let is_ours = fs::symlink_metadata(folder)
        .is_ok_and(|data| data.is_dir() && data.uid() == rustix::process::geteuid().as_raw());
    let owner = || serde_json::from_slice::<ProcessMark>(&fs::read(folder.join(OWNER_FILE)).ok()?).ok();
    is_ours && owner().is_some_and(|owner| owner.has_ended()) && in_environment(folder).is_empty()
}

const PREFIX: &str = "tracewire-";
/// Names the process that the folder belongs to. A folder without it is never removed.
const OWNER_FILE: &str = "owner.json";

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_folder_of_a_killed_program_is_removed_once_nothing_uses_it() {
        let parent = tempfile::tempdir().unwrap();
        let running = RunFolder::create_in(parent.path()).unwrap();
        let killed = parent.path().join("tracewire-killed");
        let unmarked = parent.path().join("tracewire-unmarked");
        for folder in [&killed, &unmarked] {
            fs::create_dir(folder).unwrap();
        }
        // The mark of a process that has ended: this one's, with another start.
        let mut ended: serde_json::Value =
            serde_json::from_slice(&fs::read(running.path().join(OWNER_FILE)).unwrap()).unwrap();
        ended["started"] = 1.into();
        fs::write(killed.join(OWNER_FILE), ended.to_string()).unwrap();
        let mut user = Command::new("cat");
        user.env("TRACEWIRE_FILES", killed.join("task")).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut user = user.spawn().unwrap();
        drop(RunFolder::create_in(parent.path()).unwrap());
        assert!(killed.exists(), "a process may still read its files");
        user.kill().unwrap();
        user.wait().unwrap();
        drop(RunFolder::create_in(parent.path()).unwrap());
        assert!(!killed.exists());
        assert!(unmarked.exists() && running.path().exists());
    }
}

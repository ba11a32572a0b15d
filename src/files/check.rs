//! Checks that no other user can change a file or folder that exists.

use super::create::OTHERS_CHANGE;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Another user can change a file or folder, or put another in its place.
#[derive(Debug, thiserror::Error)]
#[error("{path} {problem}")]
pub(crate) struct UnsafeFile {
    pub(crate) path: PathBuf,
    /// What is wrong, and what to do about it.
    pub(crate) problem: String,
}

/// Who may own a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Any user: the file is only read.
    Any,
    /// The user of this process or root. For root itself any user: containers run as root on folders of their host's users.
    ThisUser,
}

/// Fails if users other than its owner can change what is at the path, or if a symbolic link of another user leads there.
/// A path without a file passes.
pub(crate) fn check_unchangeable(path: &Path, owner: Owner) -> Result<(), UnsafeFile> {
    // Without a slash at the end, which would hide a link.
    let path: PathBuf = path.components().collect();
    let unsafe_file = |problem: String| Err(UnsafeFile { path: path.clone(), problem });
    let us = rustix::process::geteuid().as_raw();
    let is_ours = |uid: u32| uid == us || uid == ROOT;
    let Ok(found) = fs::symlink_metadata(&path) else { return Ok(()) };
    if found.is_symlink() && !is_ours(found.uid()) {
        let uid = found.uid();
        return unsafe_file(format!(
            "is a symbolic link of another user (uid {uid}); remove it, or name the path that it should lead to"
        ));
    }
    let Ok(found) = fs::metadata(&path) else { return Ok(()) };
    if found.mode() & OTHERS_CHANGE != 0 {
        let (mode, shown) = (found.mode() & 0o777, path.display());
        return unsafe_file(format!("can be changed by other users (mode {mode:o}); run `chmod go-w {shown}`"));
    }
    if owner == Owner::ThisUser && us != ROOT && !is_ours(found.uid()) {
        let (uid, shown) = (found.uid(), path.display());
        return unsafe_file(format!(
            "belongs to another user (uid {uid}); run `chown {us} {shown}` as root, or choose another path"
        ));
    }
    Ok(())
}

const ROOT: u32 = 0;

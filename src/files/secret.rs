//! Secrets in files: made on first use, and readable for their owner only.

use super::check::{Owner, UnsafeFile, check_unchangeable};
use super::create::create_private_folder;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why the secret in a file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    /// Another user can read or change it.
    #[error(transparent)]
    Unsafe(#[from] UnsafeFile),
    /// It has no secret.
    #[error("{0} does not contain a secret; remove it to get a new one")]
    Malformed(PathBuf),
    /// It can't be read or written.
    #[error("{path}: {cause}")]
    File {
        /// The file's path.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

/// Fails if other users can do anything with the file, besides what [`check_unchangeable`] finds.
pub(crate) fn check_secret(path: &Path) -> Result<(), UnsafeFile> {
    let mode = fs::metadata(path).map_or(0, |file| file.mode() & 0o777);
    if mode & OTHERS == 0 {
        return check_unchangeable(path, Owner::ThisUser);
    }
    let problem = format!("can be read or changed by other users (mode {mode:o}); run `chmod 600 {}`", path.display());
    Err(UnsafeFile { path: path.to_owned(), problem })
}

/// The secret in a file. If there is none, the file is created with what `make` returns; of several processes that do so at
/// once, all get the same.
pub(crate) fn secret_of(path: &Path, make: impl FnOnce() -> io::Result<String>) -> Result<String, SecretFileError> {
    let file_error = |cause: io::Error| SecretFileError::File { path: path.to_owned(), cause };
    if !path.exists() {
        let folder = path.parent().unwrap_or(Path::new("."));
        create_private_folder(folder).map_err(file_error)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(file_error)?;
        let secret = make().map_err(file_error)?;
        writeln!(file, "{secret}").map_err(file_error)?;
        match file.persist_noclobber(path) {
            Err(error) if error.error.kind() != ErrorKind::AlreadyExists => return Err(file_error(error.error)),
            _ => {}
        }
    }
    check_secret(path)?;
    let text = fs::read_to_string(path).map_err(file_error)?;
    let secret = text.trim();
    let is_secret = secret.len() >= MIN_BYTES && secret.bytes().all(|byte| byte.is_ascii_graphic());
    if is_secret { Ok(secret.to_owned()) } else { Err(SecretFileError::Malformed(path.to_owned())) }
}

/// All permissions of the group and of others.
const OTHERS: u32 = 0o077;
/// A shorter text was not made here, and could be guessed.
const MIN_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/secret");
        let first = secret_of(&path, || Ok("first-0123456789abcdef".to_owned())).unwrap();
        assert_eq!(secret_of(&path, || unreachable!()).unwrap(), first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(secret_of(&path, || unreachable!()).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "short\n", "two words of 16 bytes"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(secret_of(&path, || unreachable!()), Err(SecretFileError::Malformed(_))), "{text}");
        }
    }
}

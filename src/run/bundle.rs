//! The CA files a client needs: our CA alone for variables that add, and a whole bundle for variables that replace.
//!
//! A client that gets our CA alone where the file replaces its roots can't reach any host that is passed through. What
//! the user already named for a variable stays in that variable's file.

use super::runtime::{Role, VARIABLES};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The files, by the variable that names them.
#[derive(Debug, Default)]
pub struct Bundles {
    files: HashMap<&'static str, PathBuf>,
    whole: PathBuf,
    /// `SSL_CERT_DIR` was merged and must go: OpenSSL would read it besides.
    pub merged_folder: bool,
    /// What could not be read, for people.
    pub notes: Vec<String>,
}

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path} can't be written: {cause}")]
pub struct BundleError {
    path: PathBuf,
    cause: std::io::Error,
}

impl Bundles {
    /// The system's roots and our CA.
    pub fn whole(&self) -> &Path {
        &self.whole
    }

    /// The file for a variable.
    pub fn file(&self, variable: &str) -> Option<&Path> {
        self.files.get(variable).map(PathBuf::as_path)
    }
}

/// Writes the files into `folder`. `current` reads the user's variables; a relative path in one counts from
/// `working_directory`.
pub fn write_bundles(
    folder: &Path,
    ca_pem: &str,
    current: &dyn Fn(&str) -> Option<OsString>,
    working_directory: &Path,
) -> Result<Bundles, BundleError> {
    let mut bundles = Bundles::default();
    let alone = write(folder.join("ca.pem"), ca_pem)?;
    let mut system = system_roots(&mut bundles.notes);
    if let Some(directory) = current("SSL_CERT_DIR") {
        system.push_str(&folder_roots(Path::new(&directory)));
        bundles.merged_folder = true;
    }
    let whole = write(folder.join("bundle.pem"), joined(&system, ca_pem))?;
    bundles.whole.clone_from(&whole);
    for variable in VARIABLES {
        let default = match variable.role {
            Role::AdditiveCa => &alone,
            Role::ReplacingCa => &whole,
            _ => continue,
        };
        let users = current(variable.name).filter(|path| !path.is_empty());
        let file = match users.map(|path| working_directory.join(path)) {
            None => default.clone(),
            Some(path) => match users_roots(&path) {
                Ok(roots) => write(folder.join(format!("{}.pem", variable.name)), joined(&roots, ca_pem))?,
                Err(cause) => {
                    let note = format!("{}={} is not used: {cause}", variable.name, path.display());
                    bundles.notes.push(note);
                    default.clone()
                }
            },
        };
        bundles.files.insert(variable.name, file);
    }
    Ok(bundles)
}

/// `roots`, and our CA last unless it is in there, as it is when runs are nested.
fn joined(roots: &str, ca_pem: &str) -> String {
    let gap = if roots.is_empty() || roots.ends_with('\n') { "" } else { "\n" };
    if roots.contains(ca_pem.trim()) { roots.to_owned() } else { format!("{roots}{gap}{ca_pem}") }
}

fn system_roots(notes: &mut Vec<String>) -> String {
    let native = rustls_native_certs::load_native_certs();
    if native.certs.is_empty() {
        notes.push("this system has no root certificates; only hosts behind the proxy can be reached".to_owned());
    }
    pem_of(native.certs.iter())
}

/// Every certificate in a folder; other files are passed over.
fn folder_roots(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let certificates = entries.filter_map(|entry| CertificateDer::pem_file_iter(entry.path()).ok());
    pem_of(certificates.flatten().flatten().collect::<Vec<_>>().iter())
}

fn pem_of<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'static>>) -> String {
    certificates.map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.to_vec()))).collect()
}

fn users_roots(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > LARGEST_USER_FILE_BYTES {
        return Err(format!("{size} bytes are more than any list of certificates has"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

pub(super) fn write(path: PathBuf, content: impl AsRef<[u8]>) -> Result<PathBuf, BundleError> {
    match fs::write(&path, content) {
        Ok(()) => Ok(path),
        Err(cause) => Err(BundleError { path, cause }),
    }
}

impl BundleError {
    pub(super) fn new(path: PathBuf, cause: std::io::Error) -> Self {
        Self { path, cause }
    }
}

const LARGEST_USER_FILE_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_file_stays_and_ours_is_added_once() {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("corporate.pem");
        fs::write(&users, "-- corporate --").unwrap();
        let current = |name: &str| match name {
            "SSL_CERT_FILE" => Some("corporate.pem".into()),
            "PIP_CERT" => Some("/nowhere".into()),
            _ => None,
        };
        let bundles = write_bundles(folder.path(), "-- ours --\n", &current, folder.path()).unwrap();
        let text = |variable| fs::read_to_string(bundles.file(variable).unwrap()).unwrap();
        assert_eq!(text("SSL_CERT_FILE"), "-- corporate --\n-- ours --\n");
        assert_eq!(text("NODE_EXTRA_CA_CERTS"), "-- ours --\n");
        assert!(text("CURL_CA_BUNDLE").ends_with("-- ours --\n"));
        assert!(bundles.notes.iter().any(|note| note.contains("PIP_CERT")));
        assert_eq!(joined(&text("SSL_CERT_FILE"), "-- ours --\n"), text("SSL_CERT_FILE"));
    }
}

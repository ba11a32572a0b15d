//! Writes the CA files for clients: our CA alone for variables that add to a client's roots, and a full bundle for variables
//! that replace them.
//!
//! With our CA alone, a client could not reach hosts that are passed through. Certificates that the user configured for a
//! variable stay in that variable's file.

use super::runtime::{Role, VARIABLES};
use super::user_environment::UserEnvironment;
use crate::files::write_private;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The CA files that were written.
#[derive(Debug, Default)]
pub(crate) struct Bundles {
    // By the variable that names the file.
    files: HashMap<&'static str, PathBuf>,
    full: PathBuf,
    /// True when `SSL_CERT_DIR` was merged into the files. It must be unset, because OpenSSL would read it as well.
    pub merged_folder: bool,
    /// Notes for the user about files that could not be read.
    pub notes: Vec<String>,
}

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path} could not be written: {cause}")]
pub(crate) struct BundleError {
    path: PathBuf,
    cause: io::Error,
}

impl Bundles {
    /// The file with the system's roots and our CA.
    pub(crate) fn full(&self) -> &Path {
        &self.full
    }

    /// The file for a variable of the table.
    pub(crate) fn file(&self, variable: &str) -> Option<&Path> {
        self.files.get(variable).map(PathBuf::as_path)
    }
}

/// Writes the files into `folder`. Relative paths in variables of the user refer to `working_directory`.
pub(super) fn write_bundles(
    folder: &Path,
    ca_pem: &str,
    user: &UserEnvironment<'_>,
    working_directory: &Path,
) -> Result<Bundles, BundleError> {
    let mut bundles = Bundles::default();
    let alone = write(folder.join("ca.pem"), ca_pem)?;
    let system = system_roots(user, &mut bundles.notes);
    let mut folders = String::new();
    if let Some(directories) = user.value("SSL_CERT_DIR") {
        folders = std::env::split_paths(&directories).map(|directory| folder_roots(&directory)).collect();
        bundles.merged_folder = true;
    }
    let full = write(folder.join("bundle.pem"), with_ca(&format!("{system}{folders}"), ca_pem))?;
    bundles.full.clone_from(&full);
    for variable in VARIABLES {
        let default = match variable.role {
            Role::AdditiveCa => &alone,
            Role::ReplacingCa => &full,
            _ => continue,
        };
        let users = user.value(variable.name).filter(|path| !path.is_empty());
        let file = match users.map(|path| working_directory.join(path)) {
            None => default.clone(),
            Some(path) => match read_user_roots(&path) {
                Ok(mut roots) => {
                    if variable.name == "SSL_CERT_FILE" {
                        // SSL_CERT_DIR, which belongs to it, is unset.
                        roots.push_str(&folders);
                    }
                    write(folder.join(format!("{}.pem", variable.name)), with_ca(&roots, ca_pem))?
                }
                Err(cause) => {
                    let note = format!("{}={} is ignored: {cause}", variable.name, path.display());
                    bundles.notes.push(note);
                    default.clone()
                }
            },
        };
        bundles.files.insert(variable.name, file);
    }
    Ok(bundles)
}

/// Appends our CA to `roots`, unless they contain it already.
fn with_ca(roots: &str, ca_pem: &str) -> String {
    let gap = if roots.is_empty() || roots.ends_with('\n') { "" } else { "\n" };
    if roots.contains(ca_pem.trim()) { roots.to_owned() } else { format!("{roots}{gap}{ca_pem}") }
}

/// Returns the certificate files that the variables of this process name, each once: the roots that the agent would trust
/// without us.
pub(crate) fn user_ca_files(current: &dyn Fn(&str) -> Option<OsString>, working_directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for variable in VARIABLES.iter().filter(|variable| matches!(variable.role, Role::AdditiveCa | Role::ReplacingCa)) {
        let Some(named) = current(variable.name).filter(|path| !path.is_empty()) else { continue };
        let path = working_directory.join(named);
        let readable = CertificateDer::pem_file_iter(&path).is_ok_and(|mut roots| matches!(roots.next(), Some(Ok(_))));
        if readable && !files.contains(&path) {
            files.push(path);
        }
    }
    files
}

/// The system's roots. If variables replace them in this process, they are read from their usual file.
fn system_roots(user: &UserEnvironment<'_>, notes: &mut Vec<String>) -> String {
    let replaced = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| user.inherited(name).is_some());
    let files = SYSTEM_FILES.iter().filter(|_| replaced).filter_map(|file| CertificateDer::pem_file_iter(file).ok());
    let mut roots: Vec<CertificateDer<'static>> = files.take(1).flatten().flatten().collect();
    if roots.is_empty() {
        roots = rustls_native_certs::load_native_certs().certs;
    }
    if roots.is_empty() {
        notes.push("this system has no root certificates; hosts that are passed through can't be reached".to_owned());
    }
    pem_of(roots.iter())
}

/// All certificates in a folder. Other files are ignored.
fn folder_roots(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let certificates = entries.filter_map(|entry| CertificateDer::pem_file_iter(entry.path()).ok());
    pem_of(certificates.flatten().flatten().collect::<Vec<_>>().iter())
}

fn pem_of<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'static>>) -> String {
    certificates.map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.to_vec()))).collect()
}

fn read_user_roots(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_USER_FILE_BYTES {
        return Err(io::Error::other(format!("it has {size} bytes, and at most {MAX_USER_FILE_BYTES} are read")));
    }
    if path.is_dir() {
        return Ok(folder_roots(path));
    }
    // Comments between certificates may be in any encoding.
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn write(path: PathBuf, content: impl AsRef<[u8]>) -> Result<PathBuf, BundleError> {
    match write_private(&path, content) {
        Ok(()) => Ok(path),
        Err(cause) => Err(BundleError { path, cause }),
    }
}

impl BundleError {
    pub(super) fn new(path: PathBuf, cause: io::Error) -> Self {
        Self { path, cause }
    }
}

/// The files with the system's roots on Debian, Fedora, openSUSE, Alpine and macOS, and Nix.
const SYSTEM_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-bundle.crt",
];
const MAX_USER_FILE_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_ca_is_added_once_to_the_users_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("corporate.pem");
        fs::write(&users, "-- corporate --").unwrap();
        let current = |name: &str| match name {
            "SSL_CERT_FILE" => Some("corporate.pem".into()),
            "PIP_CERT" => Some("/nowhere".into()),
            _ => None,
        };
        let user = UserEnvironment::new(&current);
        let bundles = write_bundles(folder.path(), "-- ours --\n", &user, folder.path()).unwrap();
        let text = |variable| fs::read_to_string(bundles.file(variable).unwrap()).unwrap();
        assert_eq!(text("SSL_CERT_FILE"), "-- corporate --\n-- ours --\n");
        assert_eq!(text("NODE_EXTRA_CA_CERTS"), "-- ours --\n");
        assert!(text("CURL_CA_BUNDLE").ends_with("-- ours --\n"));
        assert!(bundles.notes.iter().any(|note| note.contains("PIP_CERT")));
        assert_eq!(with_ca(&text("SSL_CERT_FILE"), "-- ours --\n"), text("SSL_CERT_FILE"));
    }
}

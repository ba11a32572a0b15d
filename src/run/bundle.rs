//! The CA files a client needs: our CA alone for variables that add, and a whole bundle for variables that replace.
//!
//! A client that gets our CA alone where the file replaces its roots can't reach any host that is passed through. What
//! the user already named for a variable stays in that variable's file.

use super::runtime::{Role, VARIABLES};
use super::user_environment::UserEnvironment;
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

/// Writes the files into `folder`. A relative path in a variable of the user counts from `working_directory`.
pub fn write_bundles(
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
    let whole = write(folder.join("bundle.pem"), joined(&format!("{system}{folders}"), ca_pem))?;
    bundles.whole.clone_from(&whole);
    for variable in VARIABLES {
        let default = match variable.role {
            Role::AdditiveCa => &alone,
            Role::ReplacingCa => &whole,
            _ => continue,
        };
        let users = user.value(variable.name).filter(|path| !path.is_empty());
        let file = match users.map(|path| working_directory.join(path)) {
            None => default.clone(),
            Some(path) => match users_roots(&path) {
                Ok(mut roots) => {
                    if variable.name == "SSL_CERT_FILE" {
                        // Its companion is unset.
                        roots.push_str(&folders);
                    }
                    write(folder.join(format!("{}.pem", variable.name)), joined(&roots, ca_pem))?
                }
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

/// `roots`, and our CA last unless they contain it.
fn joined(roots: &str, ca_pem: &str) -> String {
    let gap = if roots.is_empty() || roots.ends_with('\n') { "" } else { "\n" };
    if roots.contains(ca_pem.trim()) { roots.to_owned() } else { format!("{roots}{gap}{ca_pem}") }
}

/// Files with certificates that the user's variables name, each once: whom the agent trusts without us.
pub fn users_files(current: &dyn Fn(&str) -> Option<OsString>, working_directory: &Path) -> Vec<PathBuf> {
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

/// The system's own roots, also where the user's variables stand in their place.
fn system_roots(user: &UserEnvironment<'_>, notes: &mut Vec<String>) -> String {
    let replaced = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| user.inherited(name).is_some());
    let files = SYSTEM_FILES.iter().filter(|_| replaced).filter_map(|file| CertificateDer::pem_file_iter(file).ok());
    let mut roots: Vec<CertificateDer<'static>> = files.take(1).flatten().flatten().collect();
    if roots.is_empty() {
        roots = rustls_native_certs::load_native_certs().certs;
    }
    if roots.is_empty() {
        notes.push("this system has no root certificates; only hosts behind the proxy can be reached".to_owned());
    }
    pem_of(roots.iter())
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
    if path.is_dir() {
        return Ok(folder_roots(path));
    }
    // Comments between certificates may be in any encoding.
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.to_string())
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

/// Where systems keep their roots in one file: Debian, Fedora, openSUSE, Alpine and macOS, Nix.
const SYSTEM_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-bundle.crt",
];
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
        let user = UserEnvironment::new(&current);
        let bundles = write_bundles(folder.path(), "-- ours --\n", &user, folder.path()).unwrap();
        let text = |variable| fs::read_to_string(bundles.file(variable).unwrap()).unwrap();
        assert_eq!(text("SSL_CERT_FILE"), "-- corporate --\n-- ours --\n");
        assert_eq!(text("NODE_EXTRA_CA_CERTS"), "-- ours --\n");
        assert!(text("CURL_CA_BUNDLE").ends_with("-- ours --\n"));
        assert!(bundles.notes.iter().any(|note| note.contains("PIP_CERT")));
        assert_eq!(joined(&text("SSL_CERT_FILE"), "-- ours --\n"), text("SSL_CERT_FILE"));
    }
}

//! Our certificate authority: generated for one run, or created once in a folder and reused.
//!
//! EC P-256, path length 0; its key only signs leaf certificates. The key file is created with mode 0600 and never
//! overwritten. A key file that is a link, or that other users can read, is rejected.

use super::error::TlsError;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rcgen::{PKCS_ECDSA_P256_SHA256, SerialNumber};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// A certificate authority that signs leaf certificates.
pub struct CertAuthority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl CertAuthority {
    /// Generates a CA that exists in memory only and is valid for 30 days.
    pub fn ephemeral(common_name: &str) -> Result<Self, TlsError> {
        let generated = GeneratedCa::new(common_name, EPHEMERAL_DAYS)?;
        Ok(Self {
            issuer: Issuer::new(generated.params, generated.key),
            certificate: generated.certificate,
            pem: generated.pem,
        })
    }

    /// Opens the CA in `folder`, or creates one there that is valid for ten years.
    pub fn open_or_create(folder: &Path) -> Result<Self, TlsError> {
        let (certificate_path, key_path) = (certificate_path(folder), folder.join(KEY_FILE));
        if !key_path.exists() {
            create(folder, &certificate_path, &key_path)?;
        }
        check_key_file(&key_path)?;
        let pem = fs::read_to_string(&certificate_path).map_err(file_error(&certificate_path))?;
        let key_pem = fs::read_to_string(&key_path).map_err(file_error(&key_path))?;
        let damaged =
            |path: &Path, cause: &dyn std::fmt::Display| TlsError::Pem { path: path.into(), cause: cause.to_string() };
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(&certificate_path, &error))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|error| damaged(&key_path, &error))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| damaged(&certificate_path, &error))?;
        Ok(Self { issuer, certificate, pem })
    }

    /// The public certificate as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// The public certificate as DER.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

/// The path of the public certificate of the CA in `folder`.
pub(crate) fn certificate_path(folder: &Path) -> PathBuf {
    folder.join("ca.pem")
}

/// A positive random serial number of 127 bits. NSS rejects two certificates of a CA with the same one.
pub(super) fn random_serial() -> Result<SerialNumber, TlsError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TlsError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

struct GeneratedCa {
    params: CertificateParams,
    key: KeyPair,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl GeneratedCa {
    fn new(common_name: &str, days: i64) -> Result<Self, TlsError> {
        let failed = |error: rcgen::Error| TlsError::Issue { host: common_name.to_owned(), cause: error.to_string() };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // The time makes the subject unique: a second CA with the same subject confuses chain building.
        params.distinguished_name.push(DnType::CommonName, format!("{common_name} {}", now.unix_timestamp()));
        params.distinguished_name.push(DnType::OrganizationName, "Tracewire");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial()?);
        params.not_before = now - Duration::days(1);
        params.not_after = now + Duration::days(days);
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self { certificate: certificate.der().clone(), pem: certificate.pem(), params, key })
    }
}

fn create(folder: &Path, certificate_path: &Path, key_path: &Path) -> Result<(), TlsError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file_error(folder))?;
    let generated = GeneratedCa::new("Tracewire CA", PERSISTENT_DAYS)?;
    // Both files are written under temporary names, and linking the key into place decides: a crash leaves no partial
    // CA, and of two processes that start at once one wins and the other reads the winner's files.
    let unique = generated.params.serial_number.as_ref().map(ToString::to_string).unwrap_or_default().replace(':', "");
    let (new_key, new_certificate) = (folder.join(format!(".key-{unique}")), folder.join(format!(".ca-{unique}")));
    write_new(&new_key, generated.key.serialize_pem().as_bytes(), 0o600)?;
    write_new(&new_certificate, generated.pem.as_bytes(), 0o644)?;
    let linked = fs::hard_link(&new_key, key_path);
    if linked.is_ok() {
        fs::rename(&new_certificate, certificate_path).map_err(file_error(certificate_path))?;
    }
    let _ = fs::remove_file(&new_key);
    let _ = fs::remove_file(&new_certificate);
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => wait_for(certificate_path),
        other => other.map_err(file_error(key_path)),
    }
}

/// Waits up to a second for the process that linked its key first to rename its certificate as well.
fn wait_for(path: &Path) -> Result<(), TlsError> {
    for _ in 0..100 {
        if path.exists() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(TlsError::File { path: path.into(), cause: ErrorKind::NotFound.into() })
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), TlsError> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    open.and_then(|mut file| file.write_all(content)).map_err(file_error(path))
}

fn check_key_file(path: &Path) -> Result<(), TlsError> {
    let metadata = fs::symlink_metadata(path).map_err(file_error(path))?;
    let problem = if metadata.file_type().is_symlink() {
        "is a symbolic link; replace it with the key file itself"
    } else if metadata.mode() & 0o077 != 0 {
        "can be read by other users; run chmod 600 on it, or remove it and ca.pem to create a new CA"
    } else {
        return Ok(());
    };
    Err(TlsError::Unsafe { path: path.into(), problem })
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> TlsError {
    let path = path.to_owned();
    move |cause| TlsError::File { path: path.clone(), cause }
}

const KEY_FILE: &str = "ca.key";
const EPHEMERAL_DAYS: i64 = 30;
const PERSISTENT_DAYS: i64 = 3650;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_keeps_one_ca_with_a_private_key_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("ca");
        let first = CertAuthority::open_or_create(&folder).unwrap();
        let again = CertAuthority::open_or_create(&folder).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(fs::metadata(folder.join(KEY_FILE)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_key_that_others_can_read_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        CertAuthority::open_or_create(folder.path()).unwrap();
        fs::set_permissions(folder.path().join(KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        let error = CertAuthority::open_or_create(folder.path()).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

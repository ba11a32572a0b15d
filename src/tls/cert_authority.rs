//! Our certificate authority: generated for one run, or created once in a folder and reused.
//!
//! EC P-256, path length 0; its key only signs leaf certificates. The key file is created with mode 0600 and never
//! overwritten. A key file that is a link, or that other users can read, is rejected, and so is a folder or a certificate that
//! they can change. Half a CA is never completed: clients trust the other half.

use super::error::TlsError;
use crate::files::{Owner, UnsafeFile, check_secret, check_unchangeable, create_private_folder};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt::Display;
use std::fs::{self, DirEntry, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

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

    /// Opens the CA in `folder`, or creates one there that is valid for ten years. Fails if other users can change it, or
    /// read its key.
    pub fn open_or_create(folder: &Path) -> Result<Self, TlsError> {
        create_private_folder(folder).map_err(file_error(folder))?;
        check_unchangeable(folder, Owner::ThisUser)?;
        let (certificate_path, key_path) = (certificate_path(folder), folder.join(KEY_FILE));
        // In this order: of a CA that another process creates, the key is there first.
        match (certificate_path.exists(), key_path.exists()) {
            (true, true) => {}
            (true, false) => return Err(unusable(&certificate_path, WITHOUT_KEY)),
            (false, true) => wait_for(&certificate_path)?,
            (false, false) => create(folder, &certificate_path, &key_path)?,
        }
        remove_abandoned(folder);
        check_unchangeable(&certificate_path, Owner::ThisUser)?;
        check_key_file(&key_path)?;
        let pem = fs::read_to_string(&certificate_path).map_err(file_error(&certificate_path))?;
        let damaged = |cause: &dyn Display| TlsError::Pem { path: certificate_path.clone(), cause: cause.to_string() };
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(&error))?;
        let key = read_key(&key_path)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|error| damaged(&error))?;
        check_certificate(&certificate_path, &parsed)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(unusable(&key_path, FOREIGN_KEY));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| damaged(&error))?;
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

fn read_key(path: &Path) -> Result<KeyPair, TlsError> {
    let pem = fs::read_to_string(path).map_err(|cause| match cause.kind() {
        ErrorKind::InvalidData => unusable(path, NO_KEY),
        _ => file_error(path)(cause),
    })?;
    KeyPair::from_pem(&pem).map_err(|_| unusable(path, NO_KEY))
}

fn check_certificate(path: &Path, certificate: &X509Certificate<'_>) -> Result<(), TlsError> {
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => {}
        _ => return Err(unusable(path, "is not the certificate of a CA")),
    }
    if certificate.validity().is_valid() { Ok(()) } else { Err(unusable(path, EXPIRED)) }
}

fn create(folder: &Path, certificate_path: &Path, key_path: &Path) -> Result<(), TlsError> {
    let generated = GeneratedCa::new("Tracewire CA", PERSISTENT_DAYS)?;
    // Both files are written under temporary names, and linking the key into place decides: a crash leaves no partial
    // CA, and of two processes that start at once one wins and the other reads the winner's files.
    let unique = generated.params.serial_number.as_ref().map(ToString::to_string).unwrap_or_default().replace(':', "");
    let (new_key, new_certificate) =
        (folder.join(format!("{NEW_KEY}{unique}")), folder.join(format!("{NEW_CERTIFICATE}{unique}")));
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

/// Removes what processes left that were killed while they created the CA.
fn remove_abandoned(folder: &Path) {
    let is_old = |entry: &DirEntry| {
        let modified = entry.metadata().and_then(|file| file.modified());
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > MAX_CREATION))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_new = [NEW_KEY, NEW_CERTIFICATE].iter().any(|prefix| name.to_string_lossy().starts_with(prefix));
        if is_new && is_old(&entry) {
            let _ = fs::remove_file(entry.path());
        }
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
    Err(unusable(path, WITHOUT_CERTIFICATE))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), TlsError> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    open.and_then(|mut file| file.write_all(content)).map_err(file_error(path))
}

fn check_key_file(path: &Path) -> Result<(), TlsError> {
    let metadata = fs::symlink_metadata(path).map_err(file_error(path))?;
    if metadata.file_type().is_symlink() {
        return Err(unusable(path, "is a symbolic link; replace it with the key file itself"));
    }
    Ok(check_secret(path)?)
}

fn unusable(path: &Path, problem: &str) -> TlsError {
    TlsError::Unusable { path: path.into(), problem: problem.to_owned() }
}

impl From<UnsafeFile> for TlsError {
    fn from(UnsafeFile { path, problem }: UnsafeFile) -> Self {
        Self::Unusable { path, problem }
    }
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> TlsError {
    let path = path.to_owned();
    move |cause| TlsError::File { path: path.clone(), cause }
}

const KEY_FILE: &str = "ca.key";
/// The beginning of the names of files that are not complete yet.
const NEW_KEY: &str = ".key-";
const NEW_CERTIFICATE: &str = ".ca-";
/// The longest time that creating a CA takes.
const MAX_CREATION: std::time::Duration = std::time::Duration::from_secs(60);
const WITHOUT_KEY: &str =
    "has no ca.key beside it; put the key back, or remove ca.pem to create a new CA, which clients must then trust";
const WITHOUT_CERTIFICATE: &str = "is missing beside ca.key; put the certificate back, or remove ca.key to create a new CA, which clients must then trust";
const NO_KEY: &str = "is not a private key as PEM; put the key back, or remove it and ca.pem to create a new CA, which clients must then trust";
const FOREIGN_KEY: &str = "is not the key of the certificate in ca.pem; put the right one back, or remove both files to create a new CA, which clients must then trust";
const EXPIRED: &str = "has expired or is not valid yet; check the clock, or remove it and ca.key to create a new CA, which clients must then trust";
const EPHEMERAL_DAYS: i64 = 30;
const PERSISTENT_DAYS: i64 = 3650;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

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

//! Certificates for endpoints of the tests: a CA, and leaves that it signs.

use super::{Running, python, root};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A CA that only the tests trust.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl TestCa {
    /// A new one, whose files go into `folder`.
    pub fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "Tests");
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.join("test-ca.pem"), &pem).unwrap();
        Self { issuer: Issuer::new(params, key), folder: folder.to_owned() }
    }

    /// Its certificate.
    pub fn path(&self) -> PathBuf {
        self.folder.join("test-ca.pem")
    }

    /// Certificate and key for `name`, as PEM files; `days` from now it ends, or has ended. `CN=name` has the name in the
    /// subject only.
    pub fn leaf(&self, name: &str, days: i64) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let alternative = if name.starts_with("CN=") { vec![] } else { vec![name.to_owned()] };
        let mut params = CertificateParams::new(alternative).unwrap();
        params.distinguished_name.push(DnType::CommonName, name.trim_start_matches("CN="));
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(10);
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.folder.join(format!("{name}{days}.{end}.pem"));
        std::fs::write(path("certificate"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("certificate"), path("key"))
    }

    /// As [`Self::leaf`], but signed by itself and a CA, as `openssl req -x509` makes them.
    pub fn self_signed(&self, name: &str, days: i64) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(10);
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        let path = |end: &str| self.folder.join(format!("self-{name}{days}.{end}.pem"));
        std::fs::write(path("certificate"), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("certificate"), path("key"))
    }

    /// One of tests/clients/servers with a certificate for `name`, and the rule that leads api.tracewire.test to it.
    pub fn server(&self, script: &str, name: &str, days: i64, more: &[&str]) -> (Running, String) {
        self.server_with(script, self.leaf(name, days), more)
    }

    /// As [`Self::server`], with this certificate and key.
    pub fn server_with(
        &self,
        script: &str,
        (certificate, key): (PathBuf, PathBuf),
        more: &[&str],
    ) -> (Running, String) {
        let mut command = Command::new(python());
        command.arg(root().join("tests/clients/servers").join(script)).args([certificate, key]).args(more);
        command.current_dir(&self.folder);
        let running = Running::start(command);
        let rule = format!("api.tracewire.test:443:127.0.0.1:{}", running.hello["port"]);
        (running, rule)
    }
}

//! Secrets that the settings leave out: made on first use in the data folder, or anew for each run.

use super::stores::home;
use crate::api::Token;
use crate::config::Config;
use crate::files::{SecretFileError, secret_of};
use crate::util::secret::Secret;
use std::io;
use std::path::PathBuf;

/// The files of the secrets that `serve` made, or had made before. `None` for those of the settings.
#[derive(Debug, Default)]
pub(crate) struct SecretFiles {
    /// The token of the API server.
    pub(crate) server_token: Option<PathBuf>,
    /// The token of the proxy.
    pub(crate) proxy_token: Option<PathBuf>,
}

/// Completes the settings of `serve`. With `server.secure` both listeners want tokens. Metadata services are blocked then, and
/// for agents on other machines, which would get the credentials of this one. Wherever callers need tokens, agents get signed
/// keys instead of these.
pub(crate) fn complete(config: &mut Config) -> Result<SecretFiles, SecretFileError> {
    let mut files = SecretFiles::default();
    if config.server.secure {
        if config.server.tokens.is_empty() {
            let (token, path) = kept_secret(SERVER_TOKEN)?;
            config.server.tokens.push(Token::admin(token));
            files.server_token = Some(path);
        }
        if config.proxy.token.is_empty() {
            let (token, path) = kept_secret(PROXY_TOKEN)?;
            config.proxy.token = token;
            files.proxy_token = Some(path);
        }
    }
    if config.server.secure || !config.proxy.listen.ip().is_loopback() {
        config.proxy.block.add_metadata();
    }
    if config.gateway.signing_key.is_empty() && !config.server.tokens.is_empty() {
        config.gateway.signing_key = kept_secret(SIGNING_KEY)?.0;
    }
    Ok(files)
}

/// Completes the settings of a command's own proxy: it wants a token where the listeners of `serve` do.
pub(crate) fn complete_for_run(config: &mut Config) -> io::Result<()> {
    let needs_token = config.server.secure || !config.server.tokens.is_empty();
    if needs_token && config.proxy.token.is_empty() {
        config.proxy.token = Secret::new(random_secret()?);
    }
    if config.server.secure {
        config.proxy.block.add_metadata();
    }
    Ok(())
}

/// The proxy's token that `serve` made with `server.secure`, if it did.
pub(crate) fn kept_proxy_token(config: &Config) -> Result<Option<Secret>, SecretFileError> {
    let is_made = config.server.secure && home().join(PROXY_TOKEN).exists();
    if is_made { kept_secret(PROXY_TOKEN).map(|(token, _)| Some(token)) } else { Ok(None) }
}

/// The secret in a file of the data folder, and the file's path.
fn kept_secret(name: &str) -> Result<(Secret, PathBuf), SecretFileError> {
    let path = home().join(name);
    Ok((Secret::new(secret_of(&path, random_secret)?), path))
}

/// 256 random bits as text.
fn random_secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system's random number generator failed"))?;
    Ok(const_hex::encode(bytes))
}

const SERVER_TOKEN: &str = "api-token";
const PROXY_TOKEN: &str = "proxy-token";
const SIGNING_KEY: &str = "signing-key";

//! Secrets that the settings leave out: made on first use in the data folder, or anew for each run.

use super::stores::home;
use crate::api::Token;
use crate::config::Config;
use crate::files::{SecretFileError, secret_of};
use crate::util::secret::Secret;
use std::path::PathBuf;
use std::{fs, io};

/// The files of the secrets that `serve` made, or had made before. `None` for those of the settings.
#[derive(Debug, Default)]
pub(crate) struct SecretFiles {
    /// The token of the API server.
    pub(crate) server_token: Option<PathBuf>,
    /// The token of the proxy.
    pub(crate) proxy_token: Option<PathBuf>,
}

/// Why the settings have no usable secrets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// Agents would get a token that is not for them.
    #[error(
        "the token of the proxy, which agents get, is a token of the API server too; give proxy.token one of its own. If it \
         is from TRACEWIRE_TOKEN, unset that here, and set it only for the commands that call the server"
    )]
    Shared,
    /// The file of a secret can't be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A secret can't be made.
    #[error(transparent)]
    Random(#[from] io::Error),
}

/// Fills in the secrets of `serve`. With `server.secure` both listeners want tokens. Metadata services are blocked then, and
/// for agents on other machines, which would get the credentials of this one. Wherever callers need tokens, agents get signed
/// keys instead of these.
pub(crate) fn fill_in_secrets(config: &mut Config) -> Result<SecretFiles, SecretError> {
    let mut files = SecretFiles::default();
    if config.server.secure {
        if config.server.tokens.is_empty() {
            let (token, path) = stored_secret(SERVER_TOKEN)?;
            config.server.tokens.push(Token::admin(token));
            files.server_token = Some(path);
        }
        if config.proxy.token.is_empty() {
            let (token, path) = stored_secret(PROXY_TOKEN)?;
            config.proxy.token = token;
            files.proxy_token = Some(path);
        }
    }
    if config.server.secure || !config.proxy.listen.ip().is_loopback() {
        config.proxy.block.add_metadata();
    }
    if config.gateway.signing_key.is_empty() && !config.server.tokens.is_empty() {
        config.gateway.signing_key = stored_secret(SIGNING_KEY)?.0;
    }
    check_proxy_token(config)?;
    Ok(files)
}

/// Fills in the secrets of a command's own proxy: it wants a token where the listeners of `serve` do.
pub(crate) fn fill_in_run_secrets(config: &mut Config) -> Result<(), SecretError> {
    let needs_token = config.server.secure || !config.server.tokens.is_empty();
    if needs_token && config.proxy.token.is_empty() {
        config.proxy.token = Secret::new(random_secret()?);
    }
    if config.server.secure {
        config.proxy.block.add_metadata();
    }
    check_proxy_token(config)
}

/// Fills in the secrets of `ui`, anew each time, and returns the token of its page, which may only read.
pub(crate) fn fill_in_ui_secrets(config: &mut Config) -> Result<Secret, SecretError> {
    let token = Secret::new(random_secret()?);
    config.server.tokens = vec![Token::reader(token.clone())];
    config.gateway.signing_key = Secret::new(random_secret()?);
    config.proxy.token = Secret::new(random_secret()?);
    Ok(token)
}

/// Fills in the secrets of `env`: the proxy's token that `serve` made with `server.secure`, if it did.
pub(crate) fn fill_in_env_secrets(config: &mut Config) -> Result<(), SecretError> {
    if config.server.secure && config.proxy.token.is_empty() && home().join(PROXY_TOKEN).exists() {
        config.proxy.token = stored_secret(PROXY_TOKEN)?.0;
    }
    check_proxy_token(config)
}

/// Agents get the proxy's token, which must therefore be none of the API server: of the settings, or one that `serve` made.
fn check_proxy_token(config: &Config) -> Result<(), SecretError> {
    let token = &config.proxy.token;
    let stored = fs::read_to_string(home().join(SERVER_TOKEN)).unwrap_or_default();
    let is_shared = config.server.tokens.iter().any(|one| one.token == *token) || stored.trim() == token.expose();
    if is_shared && !token.is_empty() { Err(SecretError::Shared) } else { Ok(()) }
}

/// The secret in a file of the data folder, and the file's path.
fn stored_secret(name: &str) -> Result<(Secret, PathBuf), SecretFileError> {
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

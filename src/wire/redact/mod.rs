//! Secrets out of what is about to be stored: header values, URLs, bodies, error texts.
//!
//! The value goes, the name stays. What was forwarded is never touched. Redacting twice is redacting once.

mod body;
mod pattern;
mod span;
mod suspect;
#[cfg(test)]
mod tests;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use suspect::Suspects;

/// `[redact]` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactSettings {
    /// Header fields to redact besides the built-in list.
    pub extra_headers: Vec<String>,
    /// Query keys, likewise.
    pub extra_query_keys: Vec<String>,
    /// JSON and form keys, likewise.
    pub extra_body_keys: Vec<String>,
    /// True stores secrets as they are.
    pub keep_secrets: bool,
}

/// Redacts by its settings and the built-in lists.
#[derive(Clone, Debug)]
pub struct Redactor {
    settings: RedactSettings,
    // First letters, in lower case, and lengths of the secret keys of bodies.
    begins: [bool; 256],
    lengths: [bool; LONGEST_KEY + 1],
    suspects: Suspects,
}

impl Redactor {
    /// By these settings.
    pub fn new(settings: RedactSettings) -> Self {
        let (mut begins, mut lengths) = ([false; 256], [false; LONGEST_KEY + 1]);
        let keys = SECRET_BODY_KEYS.iter().copied().chain(settings.extra_body_keys.iter().map(String::as_str));
        let suspects = Suspects::new(keys.clone());
        for key in keys {
            begins[usize::from(key.as_bytes().first().map_or(0, u8::to_ascii_lowercase))] = true;
            lengths[key.len().min(LONGEST_KEY)] = true;
        }
        Self { begins, lengths, suspects, settings }
    }

    /// A header field's value. `scheme credentials` keeps its scheme.
    pub fn header_value<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if self.settings.keep_secrets {
            return Cow::Borrowed(value);
        }
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "location" | "referer" | "content-location" => return self.url(value),
            "sec-websocket-protocol" => return websocket_protocols(value),
            _ => {}
        }
        if !self.is_secret_header(&name) {
            return self.text(value);
        }
        if name.ends_with("authorization") || name == "helicone-auth" {
            return Cow::Owned(authorization(value));
        }
        Cow::Borrowed(REDACTED)
    }

    /// A URL or a part of one: user info, secret query values, webhook tokens in the path.
    pub fn url<'a>(&self, url: &'a str) -> Cow<'a, str> {
        if self.settings.keep_secrets {
            return Cow::Borrowed(url);
        }
        let (before_query, query) = match url.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (url, None),
        };
        let mut out = path_tokens(&user_info(before_query));
        if let Some(query) = query {
            let (query, fragment) = query.split_once('#').map_or((query, None), |(query, rest)| (query, Some(rest)));
            out.push('?');
            out.push_str(&self.pairs(query, |redactor, key| redactor.is_secret_query_key(key)));
            if let Some(fragment) = fragment {
                out.push('#');
                out.push_str(&self.pairs(fragment, |redactor, key| redactor.is_secret_query_key(key)));
            }
        }
        let out = self.text(&out).into_owned();
        if out == url { Cow::Borrowed(url) } else { Cow::Owned(out) }
    }

    /// Free text: what looks like a key by its own shape.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.settings.keep_secrets { Cow::Borrowed(text) } else { pattern::redact(text) }
    }

    /// A textual body: values of secret keys in JSON (also line by line, also cut short) and in forms. What is
    /// borrowed is the text itself.
    pub fn body<'a>(&self, content_type: Option<&str>, url_path: &str, text: &'a str) -> Cow<'a, str> {
        if self.settings.keep_secrets {
            return Cow::Borrowed(text);
        }
        let form = content_type.is_some_and(|kind| kind.to_ascii_lowercase().contains("x-www-form-urlencoded"));
        let path = url_path.split('?').next().unwrap_or_default();
        if form && CREDENTIAL_PATHS.iter().any(|end| path.ends_with(end)) {
            return Cow::Owned(REDACTED.to_owned());
        }
        let out = if form {
            Cow::Owned(self.pairs(text, |redactor, key| redactor.is_secret_body_key(key)))
        } else if self.suspects.any(text) {
            body::redact_json(text, |key| self.is_secret_body_key(key))
        } else {
            return Cow::Borrowed(text);
        };
        match out {
            Cow::Borrowed(text) => pattern::redact(text),
            Cow::Owned(out) => Cow::Owned(pattern::redact(&out).into_owned()),
        }
    }

    fn pairs(&self, text: &str, secret: fn(&Self, &str) -> bool) -> String {
        let pairs = text.split('&').map(|pair| match pair.split_once('=') {
            Some((key, _)) if secret(self, &percent_decode_str(key).decode_utf8_lossy()) => format!("{key}={REDACTED}"),
            _ => pair.to_owned(),
        });
        pairs.collect::<Vec<_>>().join("&")
    }

    fn is_secret_header(&self, name: &str) -> bool {
        if SECRET_HEADERS.contains(&name) || listed(&self.settings.extra_headers, name) {
            return true;
        }
        let kept = name.contains("ratelimit")
            || name.contains("max-tokens")
            || name.starts_with("content-")
            || name == "idempotency-key"
            || name == "sec-websocket-key";
        !kept && SECRET_HEADER_PARTS.iter().any(|part| name.contains(part))
    }

    fn is_secret_query_key(&self, key: &str) -> bool {
        SECRET_QUERY_KEYS.iter().any(|secret| secret.eq_ignore_ascii_case(key))
            || listed(&self.settings.extra_query_keys, key)
    }

    fn is_secret_body_key(&self, key: &str) -> bool {
        // Asked of every key of every body: most are told by their first letter and length.
        let first = key.as_bytes().first().map_or(0, u8::to_ascii_lowercase);
        if !self.begins[usize::from(first)] || !self.lengths[key.len().min(LONGEST_KEY)] {
            return false;
        }
        SECRET_BODY_KEYS.iter().any(|secret| secret.eq_ignore_ascii_case(key))
            || listed(&self.settings.extra_body_keys, key)
    }
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(RedactSettings::default())
    }
}

/// Longer keys count as if they were as long.
const LONGEST_KEY: usize = 63;

fn listed(list: &[String], name: &str) -> bool {
    list.iter().any(|listed| listed.eq_ignore_ascii_case(name))
}

/// Keeps the scheme. Of an AWS signature the list of signed fields stays too.
fn authorization(value: &str) -> String {
    match value.trim().split_once(' ') {
        Some((scheme, rest)) if scheme.starts_with("AWS4-") => {
            let signed = rest.split(',').map(str::trim).find(|part| part.starts_with("SignedHeaders="));
            format!("{scheme} Credential={REDACTED}, {}, Signature={REDACTED}", signed.unwrap_or("SignedHeaders="))
        }
        Some((scheme, _)) if scheme.len() <= 20 && scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            format!("{scheme} {REDACTED}")
        }
        _ => REDACTED.to_owned(),
    }
}

/// Browsers can only send OpenAI's key here.
fn websocket_protocols(value: &str) -> Cow<'_, str> {
    if !value.contains("openai-insecure-api-key.") && !value.contains("openai-ephemeral") {
        return Cow::Borrowed(value);
    }
    let items = value.split(',').map(|item| match item.trim() {
        secret if secret.starts_with("openai-insecure-api-key.") => format!("openai-insecure-api-key.{REDACTED}"),
        secret if secret.starts_with("openai-ephemeral") => format!("openai-ephemeral.{REDACTED}"),
        other => other.to_owned(),
    });
    Cow::Owned(items.collect::<Vec<_>>().join(", "))
}

fn user_info(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{REDACTED}:{REDACTED}{}", &rest[at..]),
        None => url.to_owned(),
    }
}

/// Tokens that webhooks carry in their paths: Telegram's `/bot<token>/`, Slack's and Discord's.
fn path_tokens(url: &str) -> String {
    let mut out: Vec<String> = url.split('/').map(str::to_owned).collect();
    let webhook = url.contains("hooks.slack.com/") || url.contains("/api/webhooks/");
    let from = out.iter().position(|part| part == "services" || part == "webhooks").unwrap_or(out.len());
    for (at, part) in out.iter_mut().enumerate() {
        let bot = part.strip_prefix("bot").is_some_and(|token| token.contains(':') && token.len() > 20);
        if bot {
            *part = format!("bot{REDACTED}");
        } else if webhook && at > from && !part.is_empty() {
            *part = REDACTED.to_owned();
        }
    }
    out.join("/")
}

/// What stands for a secret, as in OpenTelemetry.
pub const REDACTED: &str = "REDACTED";

const SECRET_HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-auth-token",
    "x-access-token",
    "cookie",
    "set-cookie",
    "x-amz-security-token",
    "x-amz-signature",
    "mcp-session-id",
    "x-csrf-token",
    "x-xsrf-token",
    "ocp-apim-subscription-key",
    "x-functions-key",
    "x-vault-token",
    "x-gitlab-token",
    "private-token",
    "x-shopify-access-token",
    "cf-access-client-secret",
    "x-litellm-api-key",
    "helicone-auth",
    "x-portkey-api-key",
    "x-subscription-token",
];
const SECRET_HEADER_PARTS: &[&str] = &["token", "secret", "password", "credential", "apikey", "api-key", "session-key"];
const SECRET_QUERY_KEYS: &[&str] = &[
    "key",
    "api_key",
    "apikey",
    "api-key",
    "access_token",
    "refresh_token",
    "id_token",
    "token",
    "auth",
    "password",
    "passwd",
    "secret",
    "client_secret",
    "code",
    "sig",
    "signature",
    "AWSAccessKeyId",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Goog-Signature",
    "X-Goog-Credential",
    "X-Goog-Api-Key",
];
const SECRET_BODY_KEYS: &[&str] = &[
    "api_key",
    "apikey",
    "password",
    "passwd",
    "secret",
    "client_secret",
    "access_token",
    "refresh_token",
    "id_token",
    "private_key",
    "authorization",
];
const CREDENTIAL_PATHS: &[&str] = &["/oauth/token", "/oauth2/token", "/token", "/login"];

//! The redactor: header values, URLs, free text and bodies, by the settings and the built-in lists.

use super::credential;
use super::events::redact_series;
use super::json::redact_json;
use super::multipart::redact_parts;
use super::names::{
    CREDENTIAL_PATHS, REDACTED, SECRET_HEADER_PARTS, SECRET_HEADERS, SECRET_QUERY_KEYS, is_secret_name,
};
use super::prefilter::Prefilter;
use crate::util::glob::any_name_matches;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::LazyLock;

/// `[redact]` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactSettings {
    /// Header fields to redact besides the built-in list, as patterns with `*`.
    pub extra_headers: Vec<String>,
    /// Query keys to redact besides the built-in list, as patterns with `*`.
    pub extra_query_keys: Vec<String>,
    /// JSON and form keys to redact besides the built-in list, as patterns with `*`. A pattern with `*` makes redaction
    /// of bodies slower: each body is searched key by key.
    pub extra_body_keys: Vec<String>,
    /// True stores secrets as they are.
    pub keep_secrets: bool,
}

/// Redacts by its settings and the built-in lists.
#[derive(Clone, Debug)]
pub struct Redactor {
    settings: RedactSettings,
    prefilter: Prefilter,
}

impl Redactor {
    /// A redactor with these settings.
    pub fn new(settings: RedactSettings) -> Self {
        let keys = settings.extra_body_keys.iter().map(String::as_str);
        let has_patterns = keys.clone().any(|key| key.contains('*') || !key.is_ascii());
        let prefilter = if has_patterns { Prefilter::pass_all() } else { Prefilter::new(keys) };
        Self { prefilter, settings }
    }

    /// The redactor of what Tracewire says itself, in its log and in errors: both repeat what a request had, also a key or a
    /// password that got there by mistake.
    pub(crate) fn of_messages() -> &'static Self {
        static REDACTOR: LazyLock<Redactor> = LazyLock::new(Redactor::default);
        &REDACTOR
    }

    /// Redacts a header field's value. Of `scheme credentials` the scheme stays.
    pub fn header_value<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if self.settings.keep_secrets {
            return Cow::Borrowed(value);
        }
        let name = name.to_ascii_lowercase();
        if !self.is_secret_header(&name) {
            return match name.as_str() {
                "location" | "referer" | "content-location" | "link" | "refresh" => self.url(value),
                "sec-websocket-protocol" => websocket_protocols(value),
                _ => self.text(value),
            };
        }
        if name.ends_with("authorization") || name == "helicone-auth" {
            return Cow::Owned(authorization(value));
        }
        Cow::Borrowed(REDACTED)
    }

    /// Redacts a URL or a part of one: user info, secret query values, webhook tokens in the path.
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

    /// Redacts free text: credentials that are recognised by their shape.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.settings.keep_secrets { Cow::Borrowed(text) } else { credential::redact(text) }
    }

    /// Redacts a textual body: the values of secret keys in JSON (also one value a line, also truncated) and in forms.
    /// A borrowed result is `text` unchanged.
    pub fn body<'a>(&self, content_type: Option<&str>, url_path: &str, text: &'a str) -> Cow<'a, str> {
        if self.settings.keep_secrets {
            return Cow::Borrowed(text);
        }
        let kind = content_type.unwrap_or_default().to_ascii_lowercase();
        let is_form = kind.contains("x-www-form-urlencoded");
        let path = url_path.split('?').next().unwrap_or_default();
        if is_form && CREDENTIAL_PATHS.iter().any(|end| path.ends_with(end)) {
            return Cow::Owned(REDACTED.to_owned());
        }
        let out = if is_form {
            self.pairs(text, |redactor, key| redactor.is_secret_body_key(key))
        } else if kind.contains("multipart/form-data") {
            redact_parts(text, &|key| self.is_secret_body_key(key))
        } else if kind.contains("event-stream") {
            return self.events(text);
        } else if self.prefilter.may_have_secret(text) {
            redact_json(text, &|key| self.is_secret_body_key(key))
        } else {
            return Cow::Borrowed(text);
        };
        let out = credential::redact(&out);
        if out == text { Cow::Borrowed(text) } else { Cow::Owned(out.into_owned()) }
    }

    /// Redacts a stream of events: in each event, and in what the events say together.
    fn events<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let whole = |text: &str| match self.body(None, "", text) {
            Cow::Owned(redacted) => Some(redacted),
            Cow::Borrowed(_) => None,
        };
        match redact_series(text, &whole) {
            Some(text) => Cow::Owned(whole(&text).unwrap_or(text)),
            None => self.body(None, "", text),
        }
    }

    /// Redacts the values of secret names in `name=value&…`.
    fn pairs(&self, text: &str, secret: fn(&Self, &str) -> bool) -> String {
        let pairs = text.split('&').map(|pair| match pair.split_once('=') {
            Some((key, _)) if secret(self, &percent_decode_str(key).decode_utf8_lossy()) => format!("{key}={REDACTED}"),
            _ => pair.to_owned(),
        });
        pairs.collect::<Vec<_>>().join("&")
    }

    fn is_secret_header(&self, name: &str) -> bool {
        if SECRET_HEADERS.contains(&name) || any_name_matches(&self.settings.extra_headers, name) {
            return true;
        }
        let is_harmless = name.contains("ratelimit")
            || name.contains("max-tokens")
            || name.starts_with("content-")
            || name == "idempotency-key"
            || name == "sec-websocket-key";
        !is_harmless && SECRET_HEADER_PARTS.iter().any(|part| name.contains(part))
    }

    fn is_secret_query_key(&self, key: &str) -> bool {
        is_secret_name(key)
            || SECRET_QUERY_KEYS.iter().any(|secret| secret.eq_ignore_ascii_case(key))
            || any_name_matches(&self.settings.extra_query_keys, key)
    }

    pub(super) fn is_secret_body_key(&self, key: &str) -> bool {
        is_secret_name(key) || any_name_matches(&self.settings.extra_body_keys, key)
    }
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(RedactSettings::default())
    }
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

/// Browsers send OpenAI's key in this field: they can set no other.
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
    let webhook = url.contains("hooks.slack.com/") || url.contains("/api/webhooks/");
    if !webhook && !url.contains("bot") {
        return url.to_owned();
    }
    let mut out: Vec<String> = url.split('/').map(str::to_owned).collect();
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

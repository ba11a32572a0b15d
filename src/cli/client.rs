//! JSON over HTTP to a server door, for the commands that talk to one.
//!
//! It must not know what is asked: paths and bodies are its callers'. Where nobody answers, it says what to do.

use crate::config::Config;
use crate::tls::{Offer, UpstreamTls};
use crate::upstream::{Origin, PoolKey, Sent, Upstream, body};
use crate::util::secret::Secret;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as JsonValue;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Which server door, and what to show there.
#[derive(Args)]
pub(super) struct ServerArgs {
    /// The server door of `tracewire serve`, or an Agent Lightning server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4747")]
    server: String,
    /// The token to show there [default: TRACEWIRE_TOKEN]
    #[arg(long)]
    token: Option<String>,
}

impl ServerArgs {
    /// A client of that door. Nothing is sent yet.
    pub(super) fn client(&self, config: &Config) -> Result<Server> {
        let token = self.token.clone().or_else(|| std::env::var("TRACEWIRE_TOKEN").ok());
        Server::new(&self.server, token.filter(|token| !token.is_empty()).map(Secret::new), config)
    }
}

/// Where a door is, by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    tls: bool,
    /// As URLs have it: an IPv6 address is in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What every path begins with; most often empty.
    path: String,
}

impl Address {
    /// Reads what `flag` was given. What is wrong is said without the text: it may hold a password.
    pub(super) fn parse(url: &str, flag: &str) -> Result<Self> {
        let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri = whole.parse::<Uri>().ok().filter(|uri| uri.query().is_none());
        let tls = match uri.as_ref().and_then(Uri::scheme_str) {
            Some("http") => Some(false),
            Some("https") => Some(true),
            _ => None,
        };
        let (Some(uri), Some(tls)) = (uri, tls) else { bail!("{flag} is not a URL; it is http://HOST:PORT") };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            bail!("{flag} takes no user and password in its URL; tokens have flags of their own");
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.with_context(|| format!("{flag} names no host; it is http://HOST:PORT"))?.to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, path: uri.path().trim_end_matches('/').to_owned() })
    }

    /// The same door as another host is told to reach it by.
    pub(super) fn on_host(self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }

    /// True when only this machine reaches it.
    pub(super) fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost") || self.ip().is_some_and(|address| address.is_loopback())
    }

    /// True for `0.0.0.0` and `[::]`: somewhere on its machine.
    pub(super) fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|address| address.is_unspecified())
    }

    /// Host and port.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Without a slash at its end.
    pub(super) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }
}

/// A client of one door.
pub(super) struct Server {
    pub(super) address: Address,
    token: Option<Secret>,
    bearer: Option<HeaderValue>,
    // The flag that names another door.
    flag: &'static str,
    upstream: Upstream,
    pool_key: PoolKey,
}

/// What the door said.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Null when there was nothing, a string when it was no JSON.
    pub(super) body: JsonValue,
}

impl Server {
    /// A client of the server door at `url`.
    pub(super) fn new(url: &str, token: Option<Secret>, config: &Config) -> Result<Self> {
        Self::at(Address::parse(url, "--server")?, "--server", token, config)
    }

    /// A client of any door; `flag` is what people name another one with.
    pub(super) fn at(address: Address, flag: &'static str, token: Option<Secret>, config: &Config) -> Result<Self> {
        let bearer = token.as_ref().map(|token| HeaderValue::from_str(&format!("Bearer {}", token.expose())));
        let bearer = bearer.transpose().context("the token has characters that no header takes")?;
        let tls = UpstreamTls::new(&config.tls)?;
        let upstream = Upstream::new(config.upstream.clone(), tls, &|name| std::env::var(name).ok())?;
        let pool_key = PoolKey::Rollout(OWN.into());
        Ok(Self { address, token, bearer, flag, upstream, pool_key })
    }

    /// The token that is shown.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(Secret::expose)
    }

    /// Asks once. An error says that there was no answer; what the answer says is the caller's to judge.
    pub(super) async fn call(&self, method: Method, path: &str, json: Option<&JsonValue>) -> Result<Answer> {
        let failed = match tokio::time::timeout(CALL_TIMEOUT, Box::pin(self.exchange(method, path, json))).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("it took more than {} s", CALL_TIMEOUT.as_secs()),
        };
        let (url, flag) = (self.address.url(), self.flag);
        Err(failed.context(format!("no answer from {url}; check that `tracewire serve` runs there, or give {flag}")))
    }

    /// Asks until there is an answer that will stay, for two minutes at most: for what must not be lost, and does no
    /// harm when it comes twice.
    pub(super) async fn deliver(&self, method: Method, path: &str, json: Option<&JsonValue>) -> Result<Answer> {
        let began = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            let problem = match self.call(method.clone(), path, json).await {
                Ok(answer) if !answer.may_change() => return Ok(answer),
                Ok(answer) => anyhow!(answer.said()),
                Err(error) => error,
            };
            if began.elapsed() + wait > LONGEST_DELIVERY {
                return Err(problem);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn exchange(&self, method: Method, path: &str, json: Option<&JsonValue>) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address.url()))
            .header(header::ACCEPT, "application/json")
            // A proxy on the way must not take it for the agent's.
            .header("x-agentlightning-client", "true");
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer.clone());
        }
        let request = match json {
            Some(json) => {
                request.header(header::CONTENT_TYPE, "application/json").body(body::full(json.to_string()))?
            }
            None => request.body(body::empty())?,
        };
        let origin = Origin::new(self.address.tls, &self.address.host, self.address.port);
        let sent = self.upstream.send(request, &self.pool_key, &origin, Offer::Http1).await?;
        let Sent { response, lease: _lease, .. } = sent;
        let status = response.status();
        let collected = Limited::new(response.into_body(), LARGEST_ANSWER_BYTES).collect().await;
        let bytes = collected.map_err(|error| anyhow!("its answer broke off: {error}"))?.to_bytes();
        let body = match bytes.len() {
            0 => JsonValue::Null,
            _ => serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| JsonValue::String(String::from_utf8_lossy(&bytes).into_owned())),
        };
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// True when the same question may get another answer later.
    pub(super) fn may_change(&self) -> bool {
        let later = matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        // Agent Lightning's own server says 500 to an id that it doesn't know, which stays so.
        (later || self.status.is_server_error()) && self.body["error_type"] != "ValueError"
    }

    /// True when what was named is not there.
    pub(super) fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND || self.body["error_type"] == "ValueError"
    }

    /// The answer if it is a success, else an error with what was said and, where it helps, the cure.
    pub(super) fn success(self) -> Result<Self> {
        match self.status {
            status if status.is_success() => Ok(self),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                bail!("{}; give --token (or TRACEWIRE_TOKEN) one that allows it", self.said())
            }
            _ => bail!("{}", self.said()),
        }
    }

    /// The status and the reason, in a line.
    pub(super) fn said(&self) -> String {
        let reason = match &self.body["detail"] {
            _ if self.status.is_server_error() && self.body["traceback"].is_string() => {
                last_line(&self.body["traceback"])
            }
            JsonValue::Null if self.body.is_null() => String::new(),
            JsonValue::Null => self.body.as_str().map_or_else(|| self.body.to_string(), str::to_owned),
            JsonValue::String(text) => text.clone(),
            detail => detail.to_string(),
        };
        let reason: String = reason.chars().take(LONGEST_REASON).filter(|letter| !letter.is_control()).collect();
        let gap = if reason.is_empty() { "" } else { ": " };
        format!("the server answered {}{gap}{reason}", self.status)
    }
}

/// Where Agent Lightning's server says what is wrong.
fn last_line(traceback: &JsonValue) -> String {
    traceback.as_str().and_then(|text| text.trim_end().lines().last()).unwrap_or_default().to_owned()
}

/// An id as a part of a path.
pub(super) fn encoded(id: &str) -> String {
    utf8_percent_encode(id, RESERVED).to_string()
}

/// All but what RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Whose connections ours are.
const OWN: &str = "tracewire";
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const LARGEST_ANSWER_BYTES: usize = 256 * 1024 * 1024;
const LONGEST_REASON: usize = 300;
/// Between two tries to deliver something: twice as long each time, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(8);
pub(super) const LONGEST_DELIVERY: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, url, loopback) in [
            ("http://127.0.0.1:4747", "http://127.0.0.1:4747", true),
            ("localhost:4747/", "http://localhost:4747", true),
            ("https://trainer.example/store/", "https://trainer.example:443/store", false),
            ("http://[::1]:1", "http://[::1]:1", true),
            ("http://10.0.0.1", "http://10.0.0.1:80", false),
        ] {
            let address = Address::parse(text, "--server").unwrap();
            assert_eq!((address.url().as_str(), address.is_loopback()), (url, loopback), "{text}");
        }
        assert!(Address::parse("http://[::]:8080", "--proxy").unwrap().is_unspecified());
        for wrong in ["", "ftp://x:1", "http://", "http://x?y=1", "a b"] {
            assert!(Address::parse(wrong, "--server").is_err(), "{wrong}");
        }
        let error = Address::parse("http://user:hunter2@x:1", "--server").unwrap_err().to_string();
        assert!(error.contains("--server") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn ids_keep_to_their_part_of_a_path() {
        assert_eq!(encoded("ro-1_a.b~c"), "ro-1_a.b~c");
        assert_eq!(encoded("a/b c?ü%"), "a%2Fb%20c%3F%C3%BC%25");
    }

    #[test]
    fn answers_say_whether_to_ask_again_and_why() {
        let answer = |status: u16, body| Answer { status: StatusCode::from_u16(status).unwrap(), body };
        let unknown = json!({ "detail": "Internal server error", "error_type": "ValueError",
            "traceback": "Traceback\nValueError: Rollout x not found\n" });
        for (answer, may_change, said) in [
            (answer(200, JsonValue::Null), false, "200 OK"),
            (answer(404, json!({ "detail": "Rollout x not found" })), false, "404 Not Found: Rollout x not found"),
            (answer(500, unknown), false, "500 Internal Server Error: ValueError: Rollout x not found"),
            (answer(503, json!("busy")), true, "503 Service Unavailable: busy"),
            (answer(429, json!({ "error": "paused" })), true, "429 Too Many Requests: {\"error\":\"paused\"}"),
        ] {
            assert_eq!(answer.may_change(), may_change, "{answer:?}");
            assert_eq!(answer.said(), format!("the server answered {said}"));
        }
        let refused = answer(401, json!({ "detail": "Invalid or missing API key" })).success().unwrap_err();
        assert!(refused.to_string().contains("--token"), "{refused}");
    }
}

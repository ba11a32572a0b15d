//! An HTTP client with JSON bodies, for the commands that talk to the API server (and to the proxy's help pages).
//!
//! Paths and bodies are its callers'. Responses are read whole, at most [`MAX_RESPONSE_BYTES`]. Errors say what to do.

use crate::config::Config;
use crate::tls::{Offer, UpstreamTls};
use crate::upstream::{Origin, PoolKey, Scheme, Sent, Upstream, body};
use crate::util::block_list::BlockList;
use crate::util::secret::Secret;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as JsonValue;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The server and its credentials.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The API server of `tracewire serve`, or an Agent Lightning server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4747")]
    server: String,
    /// The token of the server [default: TRACEWIRE_TOKEN]
    #[arg(long)]
    token: Option<String>,
}

impl ServerArgs {
    /// A client of the server. It sends nothing yet.
    pub(super) fn client(&self, config: &Config) -> Result<ServerClient> {
        let token = self.token.clone().or_else(|| std::env::var("TRACEWIRE_TOKEN").ok());
        ServerClient::new(&self.server, token.filter(|token| !token.is_empty()).map(Secret::new), config)
    }
}

/// The address of a server or proxy, from its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpAddress {
    tls: bool,
    /// As in a URL: an IPv6 address is in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The prefix of every path, without a slash at its end; usually empty.
    path_prefix: String,
}

impl HttpAddress {
    /// Parses the value of `flag`. Errors do not contain the value: it may hold a password.
    pub(super) fn parse(url: &str, flag: &str) -> Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri = url.parse::<Uri>().ok().filter(|uri| uri.query().is_none());
        let tls = match uri.as_ref().and_then(Uri::scheme_str) {
            Some("http") => Some(false),
            Some("https") => Some(true),
            _ => None,
        };
        let (Some(uri), Some(tls)) = (uri, tls) else { bail!("{flag} is not a valid URL; use http://HOST:PORT") };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            bail!("{flag} must not contain a user name or password; pass a token with --token or --proxy-token");
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.with_context(|| format!("{flag} has no host; use http://HOST:PORT"))?.to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, path_prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Parses the URL of a proxy: `--proxy`. It may have credentials, and must have a port, because clients disagree about
    /// the default.
    pub(super) fn of_proxy(url: &str) -> Result<Self> {
        let place = url.rsplit_once('@').map_or_else(
            || url.to_owned(),
            |(credentials, place)| match credentials.split_once("://") {
                Some((scheme, _)) => format!("{scheme}://{place}"),
                None => place.to_owned(),
            },
        );
        let address = Self::parse(&place, "--proxy")?;
        let has_port =
            place.trim_end_matches('/').rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if address.tls || !has_port || address.port == 0 || !address.path_prefix.is_empty() {
            bail!(
                "--proxy is not the address of a proxy; use http://HOST:PORT or http://ROLLOUT.ATTEMPT:TOKEN@HOST:PORT"
            );
        }
        Ok(address)
    }

    /// The same address on another host.
    pub(super) fn on_host(self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }

    /// True if it is reachable from this machine only.
    pub(super) fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost") || self.ip().is_some_and(|address| address.is_loopback())
    }

    /// True for `0.0.0.0` and `[::]`, which stand for all interfaces of the server's machine.
    pub(super) fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|address| address.is_unspecified())
    }

    /// `HOST:PORT`.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL, without a slash at its end.
    pub(super) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path_prefix)
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }
}

/// A client of one server.
pub(super) struct ServerClient {
    pub(super) address: HttpAddress,
    token: Option<Secret>,
    /// The value of the `Authorization` header, if there is a token.
    bearer: Option<HeaderValue>,
    /// The flag that sets the address, for error messages.
    flag: &'static str,
    upstream: Upstream,
    pool_key: PoolKey,
}

/// A response, read whole.
#[derive(Clone, Debug)]
pub(super) struct ServerResponse {
    pub(super) status: StatusCode,
    /// Null if the body is empty, a string if it is not JSON.
    pub(super) body: JsonValue,
}

impl ServerClient {
    /// A client of the API server at `url`.
    pub(super) fn new(url: &str, token: Option<Secret>, config: &Config) -> Result<Self> {
        Self::with_flag(HttpAddress::parse(url, "--server")?, "--server", token, config)
    }

    /// A client of any server. `flag` is the flag that sets its address.
    pub(super) fn with_flag(
        address: HttpAddress,
        flag: &'static str,
        token: Option<Secret>,
        config: &Config,
    ) -> Result<Self> {
        let bearer = token.as_ref().map(|token| HeaderValue::from_str(&format!("Bearer {}", token.expose())));
        let bearer = bearer
            .transpose()
            .context("the token contains characters that are not allowed in a header; check --token")?;
        let tls = UpstreamTls::new(&config.tls)?;
        let upstream =
            Upstream::new(config.upstream.clone(), tls, BlockList::default(), &|name| std::env::var(name).ok())?;
        let pool_key = PoolKey::Rollout(POOL_NAME.into());
        Ok(Self { address, token, bearer, flag, upstream, pool_key })
    }

    /// The token sent to the server.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(Secret::expose)
    }

    /// Sends one request. An error means that there was no response; the caller checks the response's status.
    pub(super) async fn call(&self, method: Method, path: &str, json: Option<&JsonValue>) -> Result<ServerResponse> {
        let error = match tokio::time::timeout(CALL_TIMEOUT, Box::pin(self.exchange(method, path, json))).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("the request timed out after {} s", CALL_TIMEOUT.as_secs()),
        };
        let (url, flag) = (self.address.url(), self.flag);
        Err(error.context(format!("no response from {url}; check that `tracewire serve` runs there, or set {flag}")))
    }

    /// Sends a request and retries it until its response is final, for at most [`MAX_RETRY_TIME`]. For requests that must
    /// not be lost and are harmless when repeated.
    pub(super) async fn call_with_retries(
        &self,
        method: Method,
        path: &str,
        json: Option<&JsonValue>,
    ) -> Result<ServerResponse> {
        let started = Instant::now();
        let mut delay = MIN_RETRY_DELAY;
        loop {
            let error = match self.call(method.clone(), path, json).await {
                Ok(response) if !response.is_retryable() => return Ok(response),
                Ok(response) => anyhow!(response.summary()),
                Err(error) => error,
            };
            if started.elapsed() + delay > MAX_RETRY_TIME {
                return Err(error);
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(MAX_RETRY_DELAY);
        }
    }

    async fn exchange(&self, method: Method, path: &str, json: Option<&JsonValue>) -> Result<ServerResponse> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address.url()))
            .header(header::ACCEPT, "application/json")
            // A proxy must not record this request as one of an agent.
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
        let scheme = if self.address.tls { Scheme::Https } else { Scheme::Http };
        let origin = Origin::new(scheme, &self.address.host, Some(self.address.port));
        let sent = self.upstream.send(request, &self.pool_key, &origin, Offer::Http1).await?;
        let Sent { response, lease: _lease, .. } = sent;
        let status = response.status();
        let collected = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let bytes = collected.map_err(|error| anyhow!("the response ended early: {error}"))?.to_bytes();
        let body = match bytes.len() {
            0 => JsonValue::Null,
            _ => serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| JsonValue::String(String::from_utf8_lossy(&bytes).into_owned())),
        };
        Ok(ServerResponse { status, body })
    }
}

impl ServerResponse {
    /// True if a retry of the same request may get another response.
    pub(super) fn is_retryable(&self) -> bool {
        let retryable = matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        // Agent Lightning's own server responds with 500 to an unknown id, which no retry changes.
        (retryable || self.status.is_server_error()) && !self.is_unknown_id()
    }

    /// True if the requested object does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND || self.is_unknown_id()
    }

    /// The response if its status is a success, otherwise an error with the server's reason and, where known, the fix.
    pub(super) fn into_success(self) -> Result<Self> {
        match self.status {
            status if status.is_success() => Ok(self),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                bail!("{}; pass a token with this permission in --token or TRACEWIRE_TOKEN", self.summary())
            }
            _ => bail!("{}", self.summary()),
        }
    }

    /// The status and the server's reason, in one line of at most [`MAX_REASON_CHARS`].
    pub(super) fn summary(&self) -> String {
        let reason = match &self.body["detail"] {
            _ if self.status.is_server_error() && self.body["traceback"].is_string() => {
                last_line(&self.body["traceback"])
            }
            JsonValue::Null if self.body.is_null() => String::new(),
            JsonValue::Null => self.body.as_str().map_or_else(|| self.body.to_string(), str::to_owned),
            JsonValue::String(text) => text.clone(),
            detail => detail.to_string(),
        };
        let reason: String = reason.chars().take(MAX_REASON_CHARS).filter(|letter| !letter.is_control()).collect();
        let separator = if reason.is_empty() { "" } else { ": " };
        format!("the server responded with {}{separator}{reason}", self.status)
    }

    fn is_unknown_id(&self) -> bool {
        self.body["error_type"] == "ValueError"
    }
}

/// Agent Lightning's server puts the reason into the last line of a traceback.
fn last_line(traceback: &JsonValue) -> String {
    traceback.as_str().and_then(|text| text.trim_end().lines().last()).unwrap_or_default().to_owned()
}

/// An id, percent-encoded as one segment of a path.
pub(super) fn encoded(id: &str) -> String {
    utf8_percent_encode(id, RESERVED).to_string()
}

/// Everything except the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The name of this client's connection pool.
const POOL_NAME: &str = "tracewire";
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;
const MAX_REASON_CHARS: usize = 300;
/// The delay between two retries starts here and doubles up to [`MAX_RETRY_DELAY`].
const MIN_RETRY_DELAY: Duration = Duration::from_millis(500);
pub(super) const MAX_RETRY_DELAY: Duration = Duration::from_secs(8);
pub(super) const MAX_RETRY_TIME: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_parsed_and_formatted() {
        for (text, url, loopback) in [
            ("http://127.0.0.1:4747", "http://127.0.0.1:4747", true),
            ("localhost:4747/", "http://localhost:4747", true),
            ("https://trainer.example/store/", "https://trainer.example:443/store", false),
            ("http://[::1]:1", "http://[::1]:1", true),
            ("http://10.0.0.1", "http://10.0.0.1:80", false),
        ] {
            let address = HttpAddress::parse(text, "--server").unwrap();
            assert_eq!((address.url().as_str(), address.is_loopback()), (url, loopback), "{text}");
        }
        assert!(HttpAddress::parse("http://[::]:8080", "--proxy").unwrap().is_unspecified());
        for invalid in ["", "ftp://x:1", "http://", "http://x?y=1", "a b"] {
            assert!(HttpAddress::parse(invalid, "--server").is_err(), "{invalid}");
        }
        for (proxy, authority) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://ro.at:p%40ss@[::1]:8080/", "[::1]:8080"),
            ("user:pass@proxy:3128", "proxy:3128"),
        ] {
            assert_eq!(HttpAddress::of_proxy(proxy).unwrap().authority(), authority);
        }
        for invalid in [
            "banana",
            "http://proxy",
            "https://proxy:1",
            "socks5://proxy:1",
            "http://h:0",
            "http://h:99999",
            "http://h:1/p",
            "",
        ] {
            assert!(HttpAddress::of_proxy(invalid).is_err(), "{invalid}");
        }
        let error = HttpAddress::parse("http://user:hunter2@x:1", "--server").unwrap_err().to_string();
        assert!(error.contains("--server") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_encoded_id_is_one_path_segment() {
        assert_eq!(encoded("ro-1_a.b~c"), "ro-1_a.b~c");
        assert_eq!(encoded("a/b c?ü%"), "a%2Fb%20c%3F%C3%BC%25");
    }

    #[test]
    fn responses_say_whether_to_retry_and_why() {
        let response = |status: u16, body| ServerResponse { status: StatusCode::from_u16(status).unwrap(), body };
        let unknown = json!({ "detail": "Internal server error", "error_type": "ValueError",
            "traceback": "Traceback\nValueError: Rollout x not found\n" });
        for (response, retryable, summary) in [
            (response(200, JsonValue::Null), false, "200 OK"),
            (response(404, json!({ "detail": "Rollout x not found" })), false, "404 Not Found: Rollout x not found"),
            (response(500, unknown), false, "500 Internal Server Error: ValueError: Rollout x not found"),
            (response(503, json!("busy")), true, "503 Service Unavailable: busy"),
            (response(429, json!({ "error": "paused" })), true, "429 Too Many Requests: {\"error\":\"paused\"}"),
        ] {
            assert_eq!(response.is_retryable(), retryable, "{response:?}");
            assert_eq!(response.summary(), format!("the server responded with {summary}"));
        }
        let refused = response(401, json!({ "detail": "Invalid or missing API key" })).into_success().unwrap_err();
        assert!(refused.to_string().contains("--token"), "{refused}");
    }
}

//! The names under which secrets travel, and the text that replaces them. All are compared without regard to case.

/// Stands in the place of a secret, as in OpenTelemetry.
pub(crate) const REDACTED: &str = "REDACTED";

pub(super) const SECRET_HEADERS: &[&str] = &[
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
/// A header field whose name contains one of these is secret, unless it is known to be harmless.
pub(super) const SECRET_HEADER_PARTS: &[&str] =
    &["token", "secret", "password", "credential", "apikey", "api-key", "session-key"];
pub(super) const SECRET_QUERY_KEYS: &[&str] = &[
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
pub(super) const SECRET_BODY_KEYS: &[&str] = &[
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
/// Paths that credentials are posted to: the whole form is redacted.
pub(super) const CREDENTIAL_PATHS: &[&str] = &["/oauth/token", "/oauth2/token", "/token", "/login"];

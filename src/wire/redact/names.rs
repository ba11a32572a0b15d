//! The names under which secrets travel, and the text that replaces them. All are compared without regard to case.

/// The text that replaces a secret, as in OpenTelemetry.
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
    "x-jwt",
    "helicone-auth",
    "x-portkey-api-key",
    "x-subscription-token",
];
/// A header field with one of these in its name is secret, unless it is known to be harmless.
pub(super) const SECRET_HEADER_PARTS: &[&str] = &[
    "token",
    "secret",
    "password",
    "credential",
    "apikey",
    "api-key",
    "session-key",
    "auth-key",
    "access-key",
    "application-key",
    "app-key",
    "account-key",
    "authorization",
    "jwt",
];
/// Names that are secret in queries only: in a body these words have many other meanings.
pub(super) const SECRET_QUERY_KEYS: &[&str] = &[
    "key",
    "auth",
    "code",
    "sig",
    "signature",
    "jwt",
    "AWSAccessKeyId",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Goog-Signature",
    "X-Goog-Credential",
];
/// Paths that credentials are posted to: the whole form is redacted.
pub(super) const CREDENTIAL_PATHS: &[&str] = &["/oauth/token", "/oauth2/token", "/token", "/login"];

/// The last words of names of secrets, for the prefilter.
pub(super) const LAST_WORDS: &[&str] = &[
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "pass",
    "key",
    "authorization",
    "string",
    "credentials",
    "apikey",
    "pgpassword",
    "cookie",
    "jwt",
];

/// True for the name of a secret, however it is written: `accessToken`, `ACCESS_TOKEN`, `access-token`.
pub(super) fn is_secret_name(name: &str) -> bool {
    if name.len() > MAX_NAME_BYTES {
        return false;
    }
    let (end, is_whole) = last_words(name);
    (is_whole && EXACT.contains(&end.as_str()))
        || ENDS.iter().any(|word| end.ends_with(word))
        || is_secret_variable(name)
}

/// The letters and digits that a name ends with, in lower case and without the separators between words, and whether that is
/// the whole name.
fn last_words(name: &str) -> (String, bool) {
    let (mut reversed, mut is_whole, mut may_separate) = (Vec::new(), true, false);
    for byte in name.bytes().rev() {
        let is_separator = b"_-. ".contains(&byte);
        if byte.is_ascii_alphanumeric() {
            reversed.push(byte.to_ascii_lowercase());
        } else if !is_separator || !may_separate {
            is_whole = false;
            break;
        }
        may_separate = !is_separator;
    }
    (reversed.iter().rev().map(|byte| char::from(*byte)).collect(), is_whole)
}

/// True for a name in capitals that ends in a word for a secret.
pub(super) fn is_secret_variable(name: &str) -> bool {
    let is_variable = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let last = name.rsplit('_').next().unwrap_or_default();
    let is_public = ["PUBLIC_KEY", "PRIMARY_KEY", "FOREIGN_KEY", "SORT_KEY"].iter().any(|end| name.ends_with(end));
    let has_words =
        name.contains('_') || matches!(last, "TOKEN" | "PASSWORD" | "PASSWD" | "APIKEY" | "SECRET" | "PGPASSWORD");
    is_variable
        && has_words
        && !is_public
        && matches!(last, "KEY" | "APIKEY" | "TOKEN" | "SECRET" | "PASSWORD" | "PASSWD" | "PGPASSWORD" | "PWD" | "PASS" | "CREDENTIALS")
        // The shell's working folders.
        && !matches!(name, "OLD_PWD" | "INIT_PWD")
}

const EXACT: &[&str] = &["token", "pwd", "authorization", "proxyauthorization", "cookie", "setcookie", "xjwt"];
/// A name that ends with one of these is secret, whatever comes before: `dbPassword`, `x-api-key`, `aws_secret_access_key`.
const ENDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "apikey",
    "secretkey",
    "privatekey",
    "accesskey",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "authtoken",
    "sessiontoken",
    "securitytoken",
    "apitoken",
    "bearertoken",
    "connectionstring",
    // Headers, which tools take as an object.
    "authkey",
    "applicationkey",
    "appkey",
    "accountkey",
    "sessionkey",
];
const MAX_NAME_BYTES: usize = 64;

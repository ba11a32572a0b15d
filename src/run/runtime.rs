//! The table of environment variables that clients read, as data. Every emitter works from it.

/// What a variable is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes the proxy's URL.
    Proxy,
    /// Takes a CA file that is added to the client's own roots.
    AdditiveCa,
    /// Takes a CA file that replaces the client's own roots.
    ReplacingCa,
    /// Takes hosts that are not proxied.
    NoProxy,
    /// Takes a fixed value.
    Flag(&'static str),
}

/// One variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    /// Who reads it.
    pub readers: &'static str,
}

const fn variable(name: &'static str, role: Role, readers: &'static str) -> Variable {
    Variable { name, role, readers }
}

/// All variables that are set, whatever the command is.
pub const VARIABLES: &[Variable] = &[
    variable("HTTP_PROXY", Role::Proxy, "nearly all"),
    variable("HTTPS_PROXY", Role::Proxy, "nearly all"),
    variable("http_proxy", Role::Proxy, "curl reads only this one for plain HTTP"),
    variable("https_proxy", Role::Proxy, "wget, curl"),
    variable("ALL_PROXY", Role::Proxy, "httpx, Rust and Go tools"),
    variable("all_proxy", Role::Proxy, "httpx, Rust and Go tools"),
    variable("NO_PROXY", Role::NoProxy, "nearly all"),
    variable("no_proxy", Role::NoProxy, "nearly all"),
    variable("WS_PROXY", Role::Proxy, "aiohttp, curl"),
    variable("WSS_PROXY", Role::Proxy, "aiohttp, curl"),
    variable("ws_proxy", Role::Proxy, "Python websockets"),
    variable("wss_proxy", Role::Proxy, "Python websockets"),
    variable("grpc_proxy", Role::Proxy, "gRPC"),
    variable("npm_config_proxy", Role::Proxy, "npm"),
    variable("npm_config_https_proxy", Role::Proxy, "npm"),
    variable("YARN_HTTP_PROXY", Role::Proxy, "yarn"),
    variable("YARN_HTTPS_PROXY", Role::Proxy, "yarn"),
    variable("PIP_PROXY", Role::Proxy, "pip"),
    variable("BUNDLE_HTTP_PROXY", Role::Proxy, "Ruby bundler"),
    variable("BUNDLE_HTTPS_PROXY", Role::Proxy, "Ruby bundler"),
    variable("GLOBAL_AGENT_HTTP_PROXY", Role::Proxy, "Node global-agent"),
    variable("CGI_HTTP_PROXY", Role::Proxy, "PHP and Ruby in CGI mode"),
    variable("NODE_USE_ENV_PROXY", Role::Flag("1"), "Node 22.21, 24.5 and later"),
    variable("PERL_LWP_ENV_PROXY", Role::Flag("1"), "Perl LWP"),
    variable("NODE_EXTRA_CA_CERTS", Role::AdditiveCa, "Node, Bun"),
    variable("DENO_CERT", Role::AdditiveCa, "Deno"),
    variable("SSL_CERT_FILE", Role::ReplacingCa, "OpenSSL, httpx, Go on Linux, Rust with native roots"),
    variable("REQUESTS_CA_BUNDLE", Role::ReplacingCa, "Python requests"),
    variable("CURL_CA_BUNDLE", Role::ReplacingCa, "curl"),
    variable("PIP_CERT", Role::ReplacingCa, "pip"),
    variable("GIT_SSL_CAINFO", Role::ReplacingCa, "git"),
    variable("CARGO_HTTP_CAINFO", Role::ReplacingCa, "cargo"),
    variable("AWS_CA_BUNDLE", Role::ReplacingCa, "boto3, AWS CLI"),
    variable("NIX_SSL_CERT_FILE", Role::ReplacingCa, "nix"),
    variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", Role::ReplacingCa, "gRPC"),
    variable("BUNDLE_SSL_CA_CERT", Role::ReplacingCa, "Ruby bundler"),
    variable("npm_config_cafile", Role::ReplacingCa, "npm"),
    variable("CODEX_CA_CERTIFICATE", Role::ReplacingCa, "Codex CLI"),
    variable("PERL_LWP_SSL_CA_FILE", Role::ReplacingCa, "Perl LWP"),
    variable("WEBSOCKET_CLIENT_CA_BUNDLE", Role::ReplacingCa, "Python websocket-client"),
    variable("TRACEWIRE_ACTIVE", Role::Flag("1"), "scripts that want to know"),
];

/// What a client must set to trust a CA of ours, by its `User-Agent` or, failing that, by its program's name.
pub fn advice(user_agent: Option<&str>, program: Option<&str>) -> String {
    let known = |text: &str| {
        let text = text.to_ascii_lowercase();
        CURES.iter().find(|(names, _)| names.iter().any(|name| text.contains(name))).map(|(_, cure)| *cure)
    };
    let cure = user_agent.and_then(known).or_else(|| program.and_then(known)).unwrap_or(UNKNOWN_CURE);
    format!("{cure}, or start it with `tracewire run`, which sets it")
}

/// Names by which a client is known, most telling first, and its cure.
const CURES: &[(&[&str], &str)] = &[
    (&["claude", "node", "undici", "axios", "bun", "got ("], "set NODE_EXTRA_CA_CERTS before it starts"),
    (&["codex"], "set CODEX_CA_CERTIFICATE or SSL_CERT_FILE"),
    (&["deno"], "set DENO_CERT"),
    (&["boto3", "aws-cli", "botocore"], "set AWS_CA_BUNDLE"),
    (
        &["python-requests", "urllib3", "python-urllib"],
        "set REQUESTS_CA_BUNDLE and SSL_CERT_FILE, and pass no `verify=` of its own",
    ),
    (
        &["httpx", "openai", "anthropic", "aiohttp"],
        "set SSL_CERT_FILE, and pass no `verify=` or SSL context of its own",
    ),
    (&["python"], "set SSL_CERT_FILE and REQUESTS_CA_BUNDLE, and pass no CA bundle of its own"),
    (&["go-http-client"], "set SSL_CERT_FILE (Linux), or trust the CA in the system's store"),
    (&["git"], "set GIT_SSL_CAINFO"),
    (&["cargo"], "set CARGO_HTTP_CAINFO"),
    (&["pip"], "set PIP_CERT"),
    (&["npm", "yarn"], "set NODE_EXTRA_CA_CERTS and npm_config_cafile"),
    (&["curl"], "set CURL_CA_BUNDLE, and pass no --cacert of its own"),
    (&["wget"], "name the CA in a wgetrc as ca_certificate and that file in WGETRC"),
    (
        &["java", "okhttp", "apache-httpclient"],
        "name a trust store that holds the CA by -Djavax.net.ssl.trustStore in JAVA_TOOL_OPTIONS",
    ),
    (&["perl", "libwww"], "set PERL_LWP_SSL_CA_FILE"),
    (&["ruby"], "set SSL_CERT_FILE"),
    (&["php"], "name the CA as curl.cainfo and openssl.cafile in a folder of PHP_INI_SCAN_DIR"),
    (&["dotnet"], "set SSL_CERT_FILE"),
];
const UNKNOWN_CURE: &str =
    "make it trust the CA that `tracewire ca path` names (SSL_CERT_FILE is what most programs read)";

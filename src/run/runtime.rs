//! The table of environment variables that clients read, and the advice for each client. All output formats use it.

use clap::ValueEnum;

/// A language, a library or a program with variables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// Python and its packages
    Python,
    /// Node, npm, yarn, and programs built on them
    Node,
    /// Deno
    Deno,
    /// curl, and programs with libcurl
    Curl,
    /// wget
    Wget,
    /// git
    Git,
    /// The JVM
    Java,
    /// Go
    Go,
    /// Rust and cargo
    Rust,
    /// Ruby and bundler
    Ruby,
    /// PHP
    Php,
    /// Perl
    Perl,
    /// gRPC in C++, Python, Ruby and PHP
    Grpc,
    /// Docker's tools
    Docker,
}

/// The value that a variable gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The proxy's URL.
    Proxy,
    /// A CA file that the client adds to its own roots.
    AdditiveCa,
    /// A CA file that replaces the client's own roots.
    ReplacingCa,
    /// Hosts to reach directly.
    NoProxy,
    /// Removed: clients that prefer it would bypass the proxy.
    AllProtocols,
    /// The user's proxy for all protocols, which is removed: this proxy speaks no FTP.
    Ftp,
    /// A fixed value.
    Flag(&'static str),
    /// The folder of Tracewire's files, by which a nested environment recognizes values of this one.
    Files,
    /// The user's value with ours added.
    Extended(Extension),
}

/// The value that is added to the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    /// JVM options: the proxy, hosts to reach directly, a trust store.
    JavaOptions,
    /// A module that Node loads first. The setting `run.hooks` disables it.
    NodeHook,
    /// A folder with a `sitecustomize`. The setting `run.hooks` disables it.
    PythonHook,
    /// A system-wide wgetrc. wget reads the user's own after it. That file is not copied, because it may contain passwords.
    Wgetrc,
    /// A folder with an ini file.
    PhpIni,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variable {
    /// The name of the variable.
    pub name: &'static str,
    /// The value that it gets.
    pub role: Role,
    /// The runtimes that read it. If empty, nearly all do.
    pub runtimes: &'static [Runtime],
}

const fn variable(name: &'static str, role: Role, runtimes: &'static [Runtime]) -> Variable {
    Variable { name, role, runtimes }
}

use Role::{AdditiveCa, AllProtocols, Extended, Files, Flag, Ftp, NoProxy, Proxy, ReplacingCa};
use Runtime::{Curl, Deno, Docker, Git, Go, Grpc, Java, Node, Perl, Php, Python, Ruby, Rust, Wget};

/// All variables, set for every command.
pub(crate) const VARIABLES: &[Variable] = &[
    variable("HTTP_PROXY", Proxy, &[]),
    variable("HTTPS_PROXY", Proxy, &[]),
    // curl reads only this one for plain HTTP; wget reads only lower case.
    variable("http_proxy", Proxy, &[]),
    variable("https_proxy", Proxy, &[]),
    variable("ALL_PROXY", AllProtocols, &[]),
    variable("all_proxy", AllProtocols, &[]),
    variable("ftp_proxy", Ftp, &[]),
    variable("NO_PROXY", NoProxy, &[]),
    variable("no_proxy", NoProxy, &[]),
    variable("WS_PROXY", Proxy, &[Python, Curl]),
    variable("WSS_PROXY", Proxy, &[Python, Curl]),
    variable("ws_proxy", Proxy, &[Python, Curl]),
    variable("wss_proxy", Proxy, &[Python, Curl]),
    variable("grpc_proxy", Proxy, &[Grpc]),
    variable("npm_config_proxy", Proxy, &[Node]),
    variable("npm_config_https_proxy", Proxy, &[Node]),
    variable("npm_config_noproxy", NoProxy, &[Node]),
    variable("YARN_HTTP_PROXY", Proxy, &[Node]),
    variable("YARN_HTTPS_PROXY", Proxy, &[Node]),
    variable("PIP_PROXY", Proxy, &[Python]),
    variable("BUNDLE_HTTP_PROXY", Proxy, &[Ruby]),
    variable("BUNDLE_HTTPS_PROXY", Proxy, &[Ruby]),
    variable("BUNDLE_NO_PROXY", NoProxy, &[Ruby]),
    variable("DOCKER_HTTP_PROXY", Proxy, &[Docker]),
    variable("DOCKER_HTTPS_PROXY", Proxy, &[Docker]),
    variable("GLOBAL_AGENT_HTTP_PROXY", Proxy, &[Node]),
    variable("ELECTRON_GET_USE_PROXY", Flag("true"), &[Node]),
    // In a CGI program a request can set HTTP_PROXY, but not this variable.
    variable("CGI_HTTP_PROXY", Proxy, &[Php, Ruby]),
    // Node 22.21 and 24.5, and later.
    variable("NODE_USE_ENV_PROXY", Flag("1"), &[Node]),
    variable("PERL_LWP_ENV_PROXY", Flag("1"), &[Perl]),
    variable("NODE_EXTRA_CA_CERTS", AdditiveCa, &[Node]),
    variable("DENO_CERT", AdditiveCa, &[Deno]),
    variable("SSL_CERT_FILE", ReplacingCa, &[Python, Go, Rust, Ruby, Perl]),
    variable("REQUESTS_CA_BUNDLE", ReplacingCa, &[Python]),
    variable("CURL_CA_BUNDLE", ReplacingCa, &[Curl, Python]),
    variable("PIP_CERT", ReplacingCa, &[Python]),
    variable("GIT_SSL_CAINFO", ReplacingCa, &[Git]),
    variable("CARGO_HTTP_CAINFO", ReplacingCa, &[Rust]),
    variable("AWS_CA_BUNDLE", ReplacingCa, &[Python]),
    variable("NIX_SSL_CERT_FILE", ReplacingCa, &[]),
    variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", ReplacingCa, &[Grpc, Python]),
    variable("BUNDLE_SSL_CA_CERT", ReplacingCa, &[Ruby]),
    variable("npm_config_cafile", ReplacingCa, &[Node]),
    variable("CODEX_CA_CERTIFICATE", ReplacingCa, &[Rust]),
    variable("PERL_LWP_SSL_CA_FILE", ReplacingCa, &[Perl]),
    variable("WEBSOCKET_CLIENT_CA_BUNDLE", ReplacingCa, &[Python]),
    variable("JAVA_TOOL_OPTIONS", Extended(Extension::JavaOptions), &[Java]),
    variable("NODE_OPTIONS", Extended(Extension::NodeHook), &[Node]),
    variable("PYTHONPATH", Extended(Extension::PythonHook), &[Python]),
    variable("SYSTEM_WGETRC", Extended(Extension::Wgetrc), &[Wget]),
    variable("PHP_INI_SCAN_DIR", Extended(Extension::PhpIni), &[Php]),
    // Tells scripts that they run under Tracewire.
    variable("TRACEWIRE_ACTIVE", Flag("1"), &[]),
    variable(FILES_VARIABLE, Files, &[]),
];

/// True for a variable about hosts and certificates, which an environment for another machine takes from this one. Others
/// name programs, folders and options here. Those of an outer Tracewire environment say which values are the user's.
pub(crate) fn is_about_hosts(name: &str) -> bool {
    let role = VARIABLES.iter().find(|variable| variable.name == name).map(|variable| variable.role);
    matches!(role, Some(AdditiveCa | ReplacingCa | NoProxy | Files))
        || name == "SSL_CERT_DIR"
        || name.starts_with("TRACEWIRE_")
}

/// Names the rollout that a command runs in: `emit` and tracers within the command use it.
pub(crate) const ROLLOUT_VARIABLE: &str = "TRACEWIRE_ROLLOUT_ID";
/// Names the attempt of that rollout.
pub(crate) const ATTEMPT_VARIABLE: &str = "TRACEWIRE_ATTEMPT_ID";
/// Names the store of `run`, where `emit` writes.
pub(crate) const STORE_VARIABLE: &str = "TRACEWIRE_STORE";
/// Names the folder of an environment's files.
pub(super) const FILES_VARIABLE: &str = "TRACEWIRE_FILES";
/// Names the hosts that Tracewire added to NO_PROXY.
pub(super) const ADDED_NO_PROXY_VARIABLE: &str = "TRACEWIRE_ADDED_NO_PROXY";

/// Returns how to make a client trust our CA, by its `User-Agent` or else by its program's name.
pub(crate) fn advice(user_agent: Option<&str>, program: Option<&str>) -> String {
    let known = |text: &str| {
        let text = text.to_ascii_lowercase();
        CA_ADVICE.iter().find(|(names, _)| names.iter().any(|name| text.contains(name))).map(|(_, advice)| *advice)
    };
    let advice = user_agent.and_then(known).or_else(|| program.and_then(known)).unwrap_or(UNKNOWN_CA_ADVICE);
    format!("{advice}, or start it with `tracewire run`, which sets it")
}

/// What is known about a program besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgramOrigin {
    /// Its file has Go's build information.
    Go,
    /// Its file shows nothing.
    Unknown,
}

/// Returns why a program may bypass the proxy, and the fix.
pub(crate) fn bypass_advice(program: &str, origin: ProgramOrigin) -> String {
    let program = match origin {
        ProgramOrigin::Go => "go",
        ProgramOrigin::Unknown => program,
    };
    let starts = |names: &[&str]| names.iter().any(|name| program.starts_with(name));
    let advice = BYPASS_ADVICE.iter().find(|(names, _)| starts(names));
    format!("it bypasses the proxy in HTTPS_PROXY; {}", advice.map_or(UNKNOWN_BYPASS_ADVICE, |(_, advice)| *advice))
}

/// Beginnings of program names, with the likely cause of a bypass and its fix.
const BYPASS_ADVICE: &[(&[&str], &str)] = &[
    (
        &["node", "MainThread", "bun"],
        "likely cause: its own dispatcher or agent. Use undici's EnvHttpProxyAgent or an https-proxy-agent, or keep the \
         default",
    ),
    (&["deno"], "likely cause: its own HTTP client. Pass the proxy to Deno.createHttpClient"),
    (
        &["python", "pypy", "uvicorn", "gunicorn"],
        "likely cause: trust_env=False, an explicit proxies={} or its own transport. Remove it, or pass the proxy",
    ),
    (
        &["go"],
        "likely cause: an http.Transport without `Proxy: http.ProxyFromEnvironment`, so set it; or a localhost URL, which \
         Go never proxies, so use another name of the host",
    ),
    (&["java"], "likely cause: its own ProxySelector or `proxy(…)`. Remove it, or pass the proxy"),
    (&["curl"], "likely cause: --noproxy, --proxy or a .curlrc. Remove it"),
    (&["git"], "likely cause: http.proxy in a git configuration. Remove it"),
    (&["wget"], "likely cause: --no-proxy, or `use_proxy = off` in a wgetrc. Remove it"),
    (&["ruby"], "likely cause: `Net::HTTP.new(host, port, nil)` or its own client. Pass the proxy"),
    (&["php"], "likely cause: CURLOPT_PROXY, or a stream, which reads no proxy from the environment. Pass the proxy"),
    (&["perl"], "likely cause: its own client. Pass `env_proxy => 1` to LWP::UserAgent"),
    (&["dotnet"], "likely cause: HttpClientHandler.UseProxy = false or its own Proxy. Remove it"),
    (&["chrome", "chromium", "firefox"], "start it with --proxy-server, or set the proxy in its preferences"),
];
const UNKNOWN_BYPASS_ADVICE: &str = "look for a proxy setting of its own, or use another host name in its base URL";

/// Names of clients, the most specific first, with the settings that make them trust the CA.
const CA_ADVICE: &[(&[&str], &str)] = &[
    (&["claude", "node", "undici", "axios", "bun", "got ("], "set NODE_EXTRA_CA_CERTS before it starts"),
    (&["codex"], "set CODEX_CA_CERTIFICATE or SSL_CERT_FILE"),
    (&["deno"], "set DENO_CERT"),
    (&["boto3", "aws-cli", "botocore"], "set AWS_CA_BUNDLE"),
    (
        &["python-requests", "urllib3", "python-urllib"],
        "set REQUESTS_CA_BUNDLE and SSL_CERT_FILE, and don't pass `verify=`",
    ),
    (&["httpx", "openai", "anthropic", "aiohttp"], "set SSL_CERT_FILE, and don't pass `verify=` or an SSL context"),
    (&["python"], "set SSL_CERT_FILE and REQUESTS_CA_BUNDLE, and don't pass a CA bundle"),
    (&["go-http-client"], "set SSL_CERT_FILE (Linux), or trust the CA in the system's store"),
    (&["git"], "set GIT_SSL_CAINFO"),
    (&["cargo"], "set CARGO_HTTP_CAINFO"),
    (&["pip"], "set PIP_CERT"),
    (&["npm", "yarn"], "set NODE_EXTRA_CA_CERTS and npm_config_cafile"),
    (&["curl"], "set CURL_CA_BUNDLE, and don't pass --cacert"),
    (&["wget"], "set ca_certificate in a wgetrc, and WGETRC to that file"),
    (
        &["java", "okhttp", "apache-httpclient"],
        "put -Djavax.net.ssl.trustStore with a trust store that contains the CA into JAVA_TOOL_OPTIONS",
    ),
    (&["perl", "libwww"], "set PERL_LWP_SSL_CA_FILE"),
    (&["ruby"], "set SSL_CERT_FILE"),
    (&["php"], "set curl.cainfo and openssl.cafile in an ini file, and PHP_INI_SCAN_DIR to its folder"),
    (&["dotnet"], "set SSL_CERT_FILE"),
];
const UNKNOWN_CA_ADVICE: &str =
    "make it trust the file that `tracewire ca path` prints (most programs read SSL_CERT_FILE)";
/// The parent of a command's spans, in the form of the header `traceparent`: OpenTelemetry's variable for it.
pub(crate) const TRACEPARENT_VARIABLE: &str = "TRACEPARENT";

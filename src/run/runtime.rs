//! The table of environment variables that clients read, as data, and what each client is told to set. Every emitter
//! works from it.

use clap::ValueEnum;

/// Whose variable it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// Python and its packages.
    Python,
    /// Node, npm, yarn, and what is built on them.
    Node,
    /// Deno.
    Deno,
    /// curl, and programs on libcurl.
    Curl,
    /// wget.
    Wget,
    /// git.
    Git,
    /// The JVM.
    Java,
    /// Go.
    Go,
    /// Rust and cargo.
    Rust,
    /// Ruby and bundler.
    Ruby,
    /// PHP.
    Php,
    /// Perl.
    Perl,
    /// gRPC in C++, Python, Ruby, PHP.
    Grpc,
    /// Docker's tools.
    Docker,
}

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
    /// Takes the folder of Tracewire's files, for nested environments.
    Files,
    /// Takes the user's value and ours behind or before it.
    Extended(Extension),
}

/// What is added to a variable that has a value of the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// JVM options: proxy, hosts that are not proxied, a trust store.
    JavaOptions,
    /// A module that Node loads first. Off with the setting `run.hooks`.
    NodeHook,
    /// A folder with a `sitecustomize`. Off with the setting `run.hooks`.
    PythonHook,
    /// A system-wide wgetrc. The user's own is read after it, and stays where it is: it may hold passwords.
    Wgetrc,
    /// A folder with an ini file.
    PhpIni,
}

/// One variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    /// Who reads it; nobody in particular means nearly everybody.
    pub runtimes: &'static [Runtime],
}

const fn variable(name: &'static str, role: Role, runtimes: &'static [Runtime]) -> Variable {
    Variable { name, role, runtimes }
}

use Role::{AdditiveCa, Extended, Files, Flag, NoProxy, Proxy, ReplacingCa};
use Runtime::{Curl, Deno, Docker, Git, Go, Grpc, Java, Node, Perl, Php, Python, Ruby, Rust, Wget};

/// All variables that are set, whatever the command is.
pub const VARIABLES: &[Variable] = &[
    variable("HTTP_PROXY", Proxy, &[]),
    variable("HTTPS_PROXY", Proxy, &[]),
    // curl reads only this one for plain HTTP, wget knows no upper case.
    variable("http_proxy", Proxy, &[]),
    variable("https_proxy", Proxy, &[]),
    variable("ALL_PROXY", Proxy, &[]),
    variable("all_proxy", Proxy, &[]),
    variable("NO_PROXY", NoProxy, &[]),
    variable("no_proxy", NoProxy, &[]),
    variable("WS_PROXY", Proxy, &[Python, Curl]),
    variable("WSS_PROXY", Proxy, &[Python, Curl]),
    variable("ws_proxy", Proxy, &[Python, Curl]),
    variable("wss_proxy", Proxy, &[Python, Curl]),
    variable("FTP_PROXY", Proxy, &[Curl]),
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
    // A request can't set this one in a CGI program, as it can HTTP_PROXY.
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
    // For scripts that want to know.
    variable("TRACEWIRE_ACTIVE", Flag("1"), &[]),
    variable(super::user_environment::FILES_VARIABLE, Files, &[]),
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

/// Why a program may go past the proxy, by its name, and what to do.
pub fn bypass_advice(program: &str, built_by_go: bool) -> String {
    let program = if built_by_go { "go" } else { program };
    let starts = |names: &[&str]| names.iter().any(|name| program.starts_with(name));
    let detour = DETOURS.iter().find(|(names, _)| starts(names)).map_or(UNKNOWN_DETOUR, |(_, detour)| *detour);
    format!("it goes past the proxy that HTTPS_PROXY names; {detour}")
}

/// Programs, and how theirs goes past the proxy.
const DETOURS: &[(&[&str], &str)] = &[
    (
        &["node", "MainThread", "bun"],
        "a dispatcher or agent of its own does that: give it undici's EnvHttpProxyAgent or an https-proxy-agent, or leave \
         the default one in place",
    ),
    (&["deno"], "an HTTP client of its own does that: give Deno.createHttpClient the proxy"),
    (
        &["python", "pypy", "uvicorn", "gunicorn"],
        "trust_env=False, an explicit proxies={} or a transport of its own does that: take it out, or pass the proxy",
    ),
    (
        &["go"],
        "an http.Transport without `Proxy: http.ProxyFromEnvironment` does that, and Go never proxies localhost: set it, \
         or name the host otherwise",
    ),
    (&["java"], "a ProxySelector or `proxy(…)` of its own does that: take it out, or pass the proxy"),
    (&["curl"], "--noproxy, --proxy or a .curlrc does that"),
    (&["git"], "http.proxy of a git configuration does that"),
    (&["wget"], "--no-proxy or `use_proxy = off` in a wgetrc does that"),
    (&["ruby"], "`Net::HTTP.new(host, port, nil)` or a client of its own does that: pass the proxy"),
    (
        &["php"],
        "CURLOPT_PROXY or a stream context of its own does that: PHP's streams read no proxy from the environment",
    ),
    (&["perl"], "a client of its own does that: give LWP::UserAgent `env_proxy => 1`"),
    (&["dotnet"], "HttpClientHandler.UseProxy = false or a Proxy of its own does that"),
    (&["chrome", "chromium", "firefox"], "start it with --proxy-server, or set its proxy in its preferences"),
];
const UNKNOWN_DETOUR: &str = "look for a proxy setting of its own, or point its base URL at another name";

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

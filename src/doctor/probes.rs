//! The table of clients to try: how each prints its version, and how it makes one HTTPS call.
//!
//! A probe is code as a user would write it, configured by the environment alone. Only the two languages that can't run a
//! one-line program have a source file.

use std::path::Path;

/// One client to try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// The name to display.
    pub client: &'static str,
    /// The command that prints its version. It fails if the client is not installed. The first word is the program.
    pub version: &'static [&'static str],
    /// The command that calls `{url}`. The response does not matter.
    pub call: &'static [&'static str],
    /// The name and text of the source file that `call` runs as `{folder}/NAME`.
    pub source: Option<(&'static str, &'static str)>,
}

impl Probe {
    /// Returns the command that calls `url`. Its source file is in `folder`.
    pub(crate) fn command(&self, url: &str, folder: &Path) -> Vec<String> {
        let filled = |word: &&str| word.replace("{url}", url).replace("{folder}", &folder.display().to_string());
        self.call.iter().map(filled).collect()
    }
}

const fn probe(client: &'static str, version: &'static [&'static str], call: &'static [&'static str]) -> Probe {
    Probe { client, version, call, source: None }
}

/// A Python package, by the name of its distribution.
macro_rules! python {
    ($package:literal, $call:literal) => {
        probe(
            concat!("python3 ", $package),
            &["python3", "-c", "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))", $package],
            &["python3", "-c", concat!("import sys; url = sys.argv[1]\n", $call), "{url}"],
        )
    };
}

/// A Node package, looked up from the working folder and NODE_PATH.
macro_rules! node {
    ($package:literal, $call:literal) => {
        probe(
            concat!("node ", $package),
            &["node", "-e", NODE_VERSION, $package],
            &["node", "-e", concat!("const url = process.argv[1]; ", $call), "{url}"],
        )
    };
}

const NODE_VERSION: &str = "const name = process.argv[1]; const fs = require('fs'), path = require('path'); \
    const main = require.resolve(name); \
    const home = main.slice(0, main.lastIndexOf(path.join('node_modules', name)) + path.join('node_modules', name).length); \
    console.log(JSON.parse(fs.readFileSync(path.join(home, 'package.json'))).version)";

/// All of them, in the order in which they are shown.
pub(crate) const PROBES: &[Probe] = &[
    probe("curl", &["curl", "--version"], &["curl", "--silent", "--show-error", "{url}"]),
    probe("wget", &["wget", "--version"], &["wget", "--quiet", "--tries=1", "--output-document=-", "{url}"]),
    probe("git", &["git", "--version"], &["git", "ls-remote", "{url}"]),
    probe(
        "python3 urllib",
        &["python3", "--version"],
        &["python3", "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])", "{url}"],
    ),
    python!("requests", "import requests; requests.get(url)"),
    python!("urllib3", "import os, urllib3\nurllib3.ProxyManager(os.environ['HTTPS_PROXY']).request('GET', url)"),
    python!("httpx", "import httpx; httpx.get(url)"),
    python!(
        "aiohttp",
        "import aiohttp, asyncio\n\
         async def main():\n    async with aiohttp.ClientSession() as session:\n        await session.get(url)\n\
         asyncio.run(main())"
    ),
    python!("openai", "import openai; openai.OpenAI(api_key='probe', base_url=url, max_retries=0).models.list()"),
    python!(
        "anthropic",
        "import anthropic; anthropic.Anthropic(api_key='probe', base_url=url, max_retries=0).models.list()"
    ),
    python!(
        "boto3",
        "import boto3\n\
         keys = dict(aws_access_key_id='probe', aws_secret_access_key='probe', region_name='us-east-1')\n\
         boto3.client('sts', endpoint_url=url, **keys).get_caller_identity()"
    ),
    python!(
        "pip",
        "import subprocess\n\
         pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', '--no-deps', '--retries=0']\n\
         subprocess.run(pip + ['--index-url', url, 'no-such-package'])"
    ),
    probe(
        "node fetch",
        &["node", "-p", "fetch && process.version"],
        &["node", "-e", "fetch(process.argv[1])", "{url}"],
    ),
    probe(
        "node https",
        &["node", "--version"],
        &["node", "-e", "require('https').get(process.argv[1], (response) => response.resume())", "{url}"],
    ),
    node!("axios", "require('axios').get(url).catch(() => {})"),
    node!(
        "got",
        "import(require('url').pathToFileURL(require.resolve('got'))).then(({ default: got }) => got(url, { retry: { limit: 0 } })).catch(() => {})"
    ),
    node!("undici", "require('undici').request(url)"),
    node!("ws", "new (require('ws'))(url.replace('https', 'wss')).on('error', () => {})"),
    node!(
        "openai",
        "new (require('openai').OpenAI)({ apiKey: 'probe', baseURL: url, maxRetries: 0 }).models.list().catch(() => {})"
    ),
    node!(
        "@anthropic-ai/sdk",
        "new (require('@anthropic-ai/sdk').Anthropic)({ apiKey: 'probe', baseURL: url, maxRetries: 0 }).models.list().catch(() => {})"
    ),
    probe(
        "npm",
        &["npm", "--version"],
        &["npm", "view", "no-such-package", "--registry", "{url}", "--fetch-retries=0"],
    ),
    probe("deno", &["deno", "--version"], &["deno", "eval", "await fetch(Deno.args[0])", "{url}"]),
    probe("bun", &["bun", "--version"], &["bun", "-e", "await fetch(process.argv.at(-1))", "{url}"]),
    Probe {
        source: Some(("Probe.java", include_str!("Probe.java"))),
        ..probe("java", &["java", "--version"], &["java", "{folder}/Probe.java", "{url}"])
    },
    Probe {
        source: Some(("probe.go", include_str!("probe.go"))),
        ..probe("go", &["go", "version"], &["go", "run", "{folder}/probe.go", "{url}"])
    },
    probe(
        "ruby",
        &["ruby", "--version"],
        &["ruby", "-rnet/http", "-e", "Net::HTTP.get_response(URI(ARGV[0]))", "{url}"],
    ),
    probe(
        "perl LWP",
        &["perl", "-MLWP::Protocol::https", "-MLWP", "-e", "print LWP->VERSION"],
        &["perl", "-MLWP::UserAgent", "-e", "LWP::UserAgent->new->get($ARGV[0])", "{url}"],
    ),
    probe(
        "php curl",
        &["php", "-r", "extension_loaded('curl') || exit(1); echo PHP_VERSION;"],
        &["php", "-r", "curl_exec(curl_init($argv[1]));", "{url}"],
    ),
    probe("cargo", &["cargo", "--version"], &["cargo", "search", "--index", "sparse+{url}", "nothing"]),
];

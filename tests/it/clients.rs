//! Unmodified clients: the programs of tests/clients and curl, against the mock over HTTPS, without a change of code.

use crate::support::{Bench, Running, TRACEWIRE, at_home, clients, node_modules, python, root, skipped, text};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// One entry of tests/clients/clients.toml.
#[derive(serde::Deserialize)]
struct Client {
    name: String,
    command: Vec<String>,
    exchanges: Vec<String>,
    needs: String,
}

#[derive(serde::Deserialize)]
struct Manifest {
    client: Vec<Client>,
}

/// The groups that the tests below run; a client of another would never run.
const GROUPS: &[&str] = &["python", "node", "wget", "java", "go", "ruby", "perl", "php", "cargo"];

fn manifest() -> Vec<Client> {
    let text = std::fs::read_to_string(root().join("tests/clients/clients.toml")).unwrap();
    toml::from_str::<Manifest>(&text).unwrap().client
}

impl Client {
    /// The command, or why it can't be run here.
    fn command(&self) -> Result<Vec<String>, String> {
        let mut command = self.command.clone();
        let built = match command[0].as_str() {
            "python" => Some(clients().join("python/bin/python")),
            program => program.strip_prefix("clients/").map(|program| clients().join(program)),
        };
        if let Some(built) = &built {
            command[0] = built.display().to_string();
        }
        let program = &command[0];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = match built {
            Some(built) => built.exists(),
            None => std::env::split_paths(&path).any(|folder| folder.join(program).is_file()),
        };
        let packages = self.needs != "node" || node_modules().is_dir();
        match there && packages {
            true => Ok(command),
            false => Err(format!("{program} or its packages are not here; scripts/install-clients installs them")),
        }
    }

    /// Runs it behind the proxy, and looks at what is in the store.
    fn check(&self, bench: &Bench) -> Result<(), String> {
        let to_mock = to_mock(bench);
        self.check_with(bench, |rollout, command| bench.run(&["--rollout", rollout, "--connect-to", &to_mock], command))
    }

    /// As `check`; `run` runs the command so that its exchanges are recorded in a rollout.
    fn check_with(&self, bench: &Bench, run: impl FnOnce(&str, &[&str]) -> Output) -> Result<(), String> {
        let command = self.command()?;
        let rollout = format!("ro-{}", self.name);
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        // The name has no address: only by way of the proxy is it reached.
        arguments.push("https://api.tracewire.test");
        let output = run(&rollout, &arguments);
        if !output.status.success() || !String::from_utf8_lossy(&output.stdout).trim_end().ends_with("done") {
            return Err(text(&output));
        }
        let spans = bench.exchanges(&rollout, self.exchanges.len());
        let mut seen: Vec<String> = spans.iter().map(line).collect();
        let mut expected = self.exchanges.clone();
        seen.sort_unstable();
        expected.sort_unstable();
        if seen != expected {
            return Err(format!("expected {expected:?}\nin store {seen:?}\n{}", text(&output)));
        }
        let ended = |span: &&Value| span["attributes"]["tracewire.outcome"] != "complete";
        match spans.iter().find(ended) {
            Some(span) => Err(format!("not complete: {span:#}")),
            None => Ok(()),
        }
    }
}

/// The rule that leads api.tracewire.test to the mock.
fn to_mock(bench: &Bench) -> String {
    format!("api.tracewire.test:443:{}", bench.mock.address("https"))
}

/// Method and path of a span.
fn line(span: &Value) -> String {
    let attributes = &span["attributes"];
    let url = attributes["url.full"].as_str().unwrap_or_default();
    let path = url.splitn(4, '/').nth(3).unwrap_or_default().split('?').next().unwrap_or_default();
    format!("{} /{path}", attributes["http.request.method"].as_str().unwrap_or_default())
}

/// Runs every client of a group; all of them, so that one failure doesn't hide another.
fn check_all(needs: &str) {
    let bench = Bench::new();
    let mut failures = String::new();
    for client in manifest().iter().filter(|client| client.needs == needs) {
        if let Err(why) = client.command() {
            // Where everything can be installed, nothing may be missing.
            assert!(std::env::var_os("TRACEWIRE_ALL_CLIENTS").is_none(), "{}: {why}", client.name);
            skipped(&client.name, &why);
            continue;
        }
        match client.check(&bench) {
            Ok(()) => {}
            Err(why) => failures.push_str(&format!("\n=== {}: {why}\n", client.name)),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn every_client_has_a_test() {
    let strangers: Vec<_> = manifest().into_iter().filter(|client| !GROUPS.contains(&client.needs.as_str())).collect();
    assert!(strangers.is_empty(), "{:?}", strangers.iter().map(|client| &client.name).collect::<Vec<_>>());
}

macro_rules! clients {
    ($($test:ident = $needs:literal;)*) => {$(
        #[test]
        fn $test() {
            assert!(GROUPS.contains(&$needs));
            check_all($needs);
        }
    )*};
}

clients! {
    python_clients_are_traced = "python";
    node_clients_are_traced = "node";
    wget_is_traced = "wget";
    java_clients_are_traced = "java";
    go_is_traced = "go";
    ruby_is_traced = "ruby";
    perl_is_traced = "perl";
    php_is_traced = "php";
    rust_is_traced = "cargo";
}

const OPENAI: &str = r#"
import asyncio, sys
from openai import OpenAI, AsyncOpenAI
import requests, httpx
base = sys.argv[1]
ask = dict(model="mock", messages=[{"role": "user", "content": "hello"}])
client = OpenAI(base_url=base + "/v1", api_key="sk-test")
assert client.chat.completions.create(**ask).choices[0].message.content
assert len([chunk for chunk in client.chat.completions.create(stream=True, **ask)]) >= 10
# The mock would take hours to end it: what it has sent comes all the same.
with client.chat.completions.create(stream=True, **ask, extra_headers={"x-mock-chunk-delay-ms": "1000", "x-mock-chunks": "10000"}) as stream:
    chunks = (chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
    assert next(chunks) and next(chunks)
assert client.responses.create(model="mock", input="hello").output_text
async def both():
    asynchronous = AsyncOpenAI(base_url=base + "/v1", api_key="sk-test")
    await asyncio.gather(*[asynchronous.chat.completions.create(**ask) for _ in range(3)])
asyncio.run(both())
assert requests.get(base + "/echo").json()["method"] == "GET"
with httpx.Client(http2=True) as http2:
    answer = http2.get(base + "/echo")
    assert answer.http_version == "HTTP/2", answer.http_version
print("done")
"#;

#[test]
fn openai_requests_and_httpx_are_traced_unmodified() {
    let bench = Bench::new();
    let output = bench.run(&["--rollout", "ro-python"], &[&python(), "-c", OPENAI, &bench.https()]);
    assert!(output.status.success() && output.stdout == b"done\n", "{}", text(&output));
    let spans = bench.exchanges("ro-python", 9);
    assert_eq!(spans.len(), 9, "every exchange, and none twice");
    let left = |span: &&Value| span["attributes"]["tracewire.outcome"] != "complete";
    assert_eq!(spans.iter().filter(left).count(), 1, "the one that the client left: {spans:#?}");
    assert!(spans.iter().any(|span| span["attributes"]["network.protocol.version"] == "2"));
}

#[test]
fn curl_over_h1_and_h2_is_traced_unmodified() {
    let bench = Bench::new();
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let rollout = format!("ro-curl-{version}");
        let url = format!("{}/echo", bench.https());
        let output = bench.run(&["--rollout", &rollout], &["curl", "-sS", "--fail", flag, &url]);
        assert!(output.status.success(), "{}", text(&output));
        let spans = bench.exchanges(&rollout, 1);
        assert_eq!(spans[0]["attributes"]["network.protocol.version"], version);
    }
}

#[test]
fn an_expected_continue_is_the_endpoints() {
    let bench = Bench::new();
    let url = format!("{}/upload", bench.http());
    let upload = ["curl", "-sS", "--fail", "-H", "Expect: 100-continue", "--data-binary", "hello", &url];
    let output = bench.run(&["--rollout", "ro-expect"], &upload);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"received\":5"), "{}", text(&output));
    assert_eq!(bench.exchanges("ro-expect", 1)[0]["attributes"]["http.request.body.size"], 5);
}

const REQUESTS: &str = "import requests, sys; [print(requests.get(url).text) for url in sys.argv[1:]]";
const URLLIB: &str = "import urllib.request, sys; [print(urllib.request.urlopen(url).read()) for url in sys.argv[1:]]";
// Both requests are on one connection.
const AIOHTTP: &str = "\
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        for url in sys.argv[1:]:
            async with session.get(url) as response:
                print(await response.text())
asyncio.run(main())";
const FETCH: &str =
    "(async () => { for (const url of process.argv.slice(1)) console.log(await (await fetch(url)).text()); })()";

/// A shell that has the variables of `env`, and runs the command in the arguments that are added.
fn in_our_shell(bench: &Bench, serve: &Running, proxy: &str) -> Command {
    let script = r#"eval "$("$0" env --proxy "$1" --ca "$2")" && shift 2 && exec "$@""#;
    let mut shell = at_home(Command::new("sh"), bench.home());
    shell.args(["-c", script, TRACEWIRE, proxy]).arg(serve.path("ca")).stdin(Stdio::null());
    shell.current_dir(root()).env("NODE_PATH", node_modules());
    shell
}

#[test]
fn a_run_in_a_shell_with_our_variables_traces_the_same() {
    let bench = Bench::new();
    let serve = bench.serve(&["--connect-to", &to_mock(&bench)]);
    let names = ["python-aiohttp", "python-requests", "node-undici", "node-ws", "java-http-client", "php-curl", "wget"];
    for client in manifest().iter().filter(|client| names.contains(&client.name.as_str())) {
        if client.command().is_err() {
            // The test of its group says so.
            continue;
        }
        let traced = client.check_with(&bench, |rollout, command| {
            let mut shell = in_our_shell(&bench, &serve, &serve.url("proxy"));
            shell.args([TRACEWIRE, "run", "--rollout", rollout, "--"]).args(command).output().unwrap()
        });
        assert_eq!(traced, Ok(()), "{}", client.name);
    }
}

#[test]
fn in_a_shell_with_our_variables_the_api_is_reached_and_endpoints_on_this_machine_are_traced() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (api, weather) = (format!("{}/healthz", serve.url("server")), format!("{}/weather", bench.http()));
    let python = python();
    for (name, client) in [
        ("curl", &["curl", "-sS"] as &[&str]),
        ("curl-tunnel", &["curl", "-sS", "--proxytunnel"]),
        ("requests", &[&python, "-c", REQUESTS]),
        ("urllib", &[&python, "-c", URLLIB]),
        ("aiohttp", &[&python, "-c", AIOHTTP]),
        ("fetch", &["node", "-e", FETCH]),
    ] {
        let rollout = format!("ro-env-{name}");
        let proxy = format!("http://{rollout}.at-1:x@{}", serve.address("proxy"));
        let output =
            in_our_shell(&bench, &serve, &proxy).args(client).args([&api, &weather, &weather]).output().unwrap();
        let printed = text(&output);
        assert!(output.status.success() && printed.contains("\"status\":\"ok\""), "{name}: {printed}");
        assert!(printed.contains("celsius"), "{name}: {printed}");
        // The request to the API was answered before, so it would be here too.
        let recorded: Vec<String> = bench.exchanges(&rollout, 2).iter().map(line).collect();
        assert_eq!(recorded, ["GET /weather"; 2], "{name}");
    }
}

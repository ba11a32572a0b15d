//! `tracewire doctor`: every client of this machine tried through the proxy, or one command watched.

use super::recorded::{Recorded, Run, command_name};
use super::{DoorArgs, show};
use crate::config::Config;
use crate::doctor::diagnosis::{Bypass, Check, Diagnosis, Refused, Verdict, judge};
use crate::doctor::probes::{PROBES, Probe};
use crate::mock::{Mock, MockOptions};
use crate::run::child::{ChildError, Streams};
use crate::upstream::UpstreamProxy;
use anyhow::{Context, Result};
use clap::Args;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Arguments of `doctor`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire doctor
  tracewire doctor --json | jq '.checks[] | select(.verdict != \"works\")'
  tracewire doctor -- python3 agent.py

The exit code is 0 when everything found is traced, 1 when something is not.")]
pub(super) struct DoctorArgs {
    /// Print JSON; what the command prints goes to stderr then
    #[arg(long)]
    json: bool,
    /// End the command after so many seconds
    #[arg(long, value_name = "SECS")]
    timeout: Option<u64>,
    #[command(flatten)]
    door: DoorArgs,
    /// A command to watch, and its arguments [default: try the clients of this machine]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn run(args: DoctorArgs) -> Result<ExitCode> {
    let mut config = args.door.config()?;
    // A look leaves nothing behind.
    config.store.path = Some("memory:".into());
    let healthy = match args.command.is_empty() {
        true => try_clients(config, args.json).await?,
        false => watch(config, args).await?,
    };
    Ok(ExitCode::from(u8::from(!healthy)))
}

/// Tries the clients of this machine, one after the other. True when all that are here work.
async fn try_clients(mut config: Config, json: bool) -> Result<bool> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let https = TcpListener::bind("127.0.0.1:0").await.context("no free port on 127.0.0.1")?;
    let mock = Mock::start(None, Some(https), MockOptions::default()).await?;
    let endpoint = mock.https_addr().context("the mock endpoint has no address")?;
    let ca = folder.path().join("endpoint.pem");
    fs::write(&ca, mock.ca_pem()).context("no temporary file")?;
    config.tls.upstream_ca.push(ca);
    // The name has no address: whoever goes past the proxy doesn't get anywhere.
    config.upstream.connect_to = vec![format!("{HOST}:443:{endpoint}")];
    config.upstream.proxy = UpstreamProxy::None;
    let mut checks = Vec::new();
    for (number, probe) in PROBES.iter().enumerate() {
        progress(json, &format!("trying {} ({} of {})", probe.client, number + 1, PROBES.len()));
        checks.push(check(probe, &config, &folder).await?);
    }
    progress(json, "");
    let healthy = checks.iter().all(|check| matches!(check.verdict, Verdict::Works | Verdict::NotHere));
    show::out(&match json {
        true => format!("{:#}\n", serde_json::json!({ "healthy": healthy, "checks": checks })),
        false => table(&checks),
    });
    Ok(healthy)
}

async fn check(probe: &Probe, config: &Config, folder: &TempDir) -> Result<Check> {
    let Some(version) = version(probe).await else {
        return Ok(Check { client: probe.client, version: None, verdict: Verdict::NotHere, advice: None });
    };
    if let Some((name, text)) = probe.source {
        fs::write(folder.path().join(name), text).context("no temporary file")?;
    }
    let command = probe.command(&format!("https://{HOST}/"), folder.path());
    let output = folder.path().join("output");
    let recorded = Recorded {
        timeout: Some(TIMEOUT),
        streams: Streams::Captured(Arc::new(File::create(&output).context("no temporary file")?)),
        ..Recorded::new(probe.client, command.into_iter().map(OsString::from).collect())
    };
    let run = recorded.run(config).await?;
    let (verdict, advice) = judge(probe.version[0], &run.spans?, &read(&output));
    Ok(Check { client: probe.client, version: Some(version), verdict, advice })
}

/// What a client says of its version, if it is here.
async fn version(probe: &Probe) -> Option<String> {
    let mut command = tokio::process::Command::new(probe.version[0]);
    command.args(&probe.version[1..]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbered =
        |word: &&str| word.trim_start_matches("go").trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
    let version = text.split_whitespace().find(numbered).unwrap_or_default();
    output.status.success().then(|| version.trim_start_matches("go").trim_start_matches('v').to_owned())
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn table(checks: &[Check]) -> String {
    let (absent, here): (Vec<_>, Vec<_>) = checks.iter().partition(|check| check.verdict == Verdict::NotHere);
    let width = here.iter().map(|check| check.client.len()).max().unwrap_or_default();
    let versions = here.iter().filter_map(|check| check.version.as_deref()).map(str::len).max().unwrap_or_default();
    let mut text = String::new();
    for check in &here {
        let mark = if check.verdict == Verdict::Works { '✓' } else { '✗' };
        let (version, advice) = (check.version.as_deref().unwrap_or_default(), check.advice.as_deref());
        let _ = writeln!(text, "{mark} {:width$}  {version:versions$}  {}", check.client, advice.unwrap_or("works"));
    }
    if !absent.is_empty() {
        let names: Vec<_> = absent.iter().map(|check| check.client).collect();
        let _ = writeln!(text, "\nnot on this machine: {}", names.join(", "));
    }
    text
}

/// Runs a command under watch and explains what was seen. True when all of it is traced.
async fn watch(config: Config, args: DoctorArgs) -> Result<bool> {
    let name = command_name(&args.command);
    let recorded = Recorded {
        timeout: args.timeout.map(Duration::from_secs),
        streams: if args.json { Streams::ToStderr } else { Streams::Inherited },
        watched: true,
        ..Recorded::new(&name, args.command)
    };
    let Run { ended, spans, notes, seen, unproxied, .. } = recorded.run(&config).await?;
    if let Err(error) = &ended {
        show::note(&format!("tracewire: {error}"));
    }
    let exit_code = ended.as_ref().map_or_else(ChildError::exit_code, |end| end.exit_code);
    let diagnosis = Diagnosis::new(exit_code, &spans?, seen, &unproxied, notes);
    show::out(&match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&diagnosis)?),
        false => explained(&name, &diagnosis),
    });
    Ok(diagnosis.is_healthy())
}

fn explained(name: &str, diagnosis: &Diagnosis) -> String {
    let mut text = format!("\n{name} ended with exit code {}\n", diagnosis.exit_code);
    let mut line = |mark: char, what: &str| text.extend([mark.to_string().as_str(), " ", what, "\n"]);
    match diagnosis.exchanges {
        0 => line('✗', "no exchange was recorded"),
        some => {
            let hosts: Vec<_> = diagnosis.hosts.iter().map(String::as_str).collect();
            line('✓', &format!("{some} exchanges recorded, with {}", hosts.join(", ")));
        }
    }
    for Refused { host, client, connections, advice, pinned } in &diagnosis.distrusts {
        let what = if *pinned { "distrusted, perhaps pinned" } else { "distrusted" };
        line('✗', &format!("{what}: {host} by {client}, {connections} connections\n    {advice}"));
    }
    for Bypass { sighting, expected, advice } in &diagnosis.bypasses {
        let (what, mark) = if *expected { ("left alone", '–') } else { ("bypassed", '✗') };
        let (program, pid, remote, connections) =
            (&sighting.program, sighting.pid, sighting.remote, sighting.connections);
        line(mark, &format!("{what}: {program} (pid {pid}) to {remote}, {connections} connections\n    {advice}"));
    }
    for host in &diagnosis.unopened {
        line('–', &format!("relayed unopened: {host} (proxy.passthrough, or not HTTP)"));
    }
    for note in &diagnosis.notes {
        line('–', note);
    }
    if diagnosis.exchanges == 0 && diagnosis.distrusts.is_empty() && diagnosis.bypasses.is_empty() {
        line('–', "it connected to nobody that could be seen: does it talk HTTP, and for longer than a moment?");
    }
    text
}

/// A line that the next one replaces, for people.
fn progress(json: bool, text: &str) {
    if !json && std::io::stderr().is_terminal() {
        show::replace_line(text);
    }
}

const HOST: &str = "doctor.tracewire.test";
/// Go and Java compile first.
const TIMEOUT: Duration = Duration::from_secs(120);
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);

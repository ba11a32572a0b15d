//! Clocks that jump: what runs, what is recorded and what expires, while the wall clock of the machine is set.

use crate::support::client::{ask, post};
use crate::support::{
    Bench, Running, connect, endpoint, is_exchange, read_head, read_to_end, skipped, text, tracewire,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;

/// The library that gives a program another clock, by the file that names the offset.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(folder: &Path) -> Option<Self> {
        let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
        let library =
            folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())?;
        let clock = Self { library, file: folder.join("clock") };
        clock.set("+0d");
        Some(clock)
    }

    fn set(&self, offset: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// The same command by this clock. As on a machine whose clock is set, the monotonic clock goes on.
    fn apply(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")]);
    }
}

fn starts(clock: &Clock, mut command: Command, arguments: &[&str]) -> Running {
    clock.apply(command.args(arguments));
    Running::start(command)
}

#[test]
fn a_clock_that_is_set_costs_no_exchange_and_no_order() {
    let bench = Bench::new();
    let Some(clock) = Clock::new(bench.home()) else {
        let why = "libfaketime is not here; scripts/install-clients installs it";
        assert!(std::env::var_os("TRACEWIRE_ALL_CLIENTS").is_none(), "{why}");
        return skipped("clock jumps", why);
    };
    let ca = bench.home().join("endpoint-ca.pem");
    let (ca, settings) = (ca.to_str().unwrap(), bench.home().join("proxy.toml"));
    std::fs::write(&settings, "[capture]\ndurability = \"commit\"\n[gateway]\nsigning_key = \"key\"\n").unwrap();
    let mock = ["mock", "--json", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--ca-out", ca];
    let mock = starts(&clock, tracewire(bench.home()), &mock);
    let config = settings.to_str().unwrap();
    let serve = [
        "serve",
        "--json",
        "--proxy",
        "127.0.0.1:0",
        "--server",
        "127.0.0.1:0",
        "--upstream-ca",
        ca,
        "--config",
        config,
    ];
    let serve = starts(&clock, tracewire(bench.home()), &serve);
    let server = serve.address("server");
    let key = post(server, "/v1/tracewire/keys", &json!({ "rollout_id": "ro-key", "expires_in_seconds": 3600 })).json();
    let authorization = format!("Bearer {}", key["key"].as_str().unwrap());

    // An exchange that is in flight during the jumps.
    let (ends, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let slow = endpoint(move |mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha").unwrap();
        let _ = wait.lock().unwrap().recv();
        stream.write_all(b"lf").unwrap();
    });
    let mut agent = connect(serve.address("proxy"));
    let request =
        format!("GET http://{slow}/ HTTP/1.1\r\nHost: {slow}\r\nx-rollout-id: ro-clock\r\nConnection: close\r\n\r\n");
    agent.write_all(request.as_bytes()).unwrap();
    assert!(read_head(&mut agent).starts_with("HTTP/1.1 200"));

    let proxy = format!("http://ro-clock.at-1:@{}", serve.address("proxy"));
    let url = format!("https://{}/echo", mock.address("https"));
    let offsets = ["+0d", "+20d", "+300d", "-12h", "+0d"];
    for offset in offsets {
        clock.set(offset);
        // Certificates are those of the day: this client has the same clock.
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "30", "--proxy", &proxy, &url, "--cacert"]).arg(serve.path("ca"));
        clock.apply(&mut curl);
        let answer = curl.output().unwrap();
        assert!(answer.status.success() && text(&answer).contains("/echo"), "{offset}: {}", text(&answer));
        let by_key = ask(server, "GET", "/v1/models", &[("authorization", &authorization)], "").status;
        assert_eq!(by_key == 401, offset.ends_with("00d") || offset == "+20d", "{offset}: {by_key}");
    }
    ends.send(()).unwrap();
    assert_eq!(read_to_end(&mut agent), "half");
    assert_eq!(serve.stop(), Some(0));

    let spans: Vec<Value> = bench.spans("ro-clock").into_iter().filter(is_exchange).collect();
    assert_eq!(spans.len(), offsets.len() + 1, "each once");
    let ids: BTreeSet<_> = spans.iter().map(|span| span["sequence_id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), spans.len(), "no sequence id twice");
    for span in &spans {
        let duration = span["end_time"].as_f64().unwrap() - span["start_time"].as_f64().unwrap();
        assert!((0.0..600.0).contains(&duration), "{span:#}");
    }
}

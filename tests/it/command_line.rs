//! The command line as a new user meets it: what is refused, what is said, and what a shell gets.

use crate::support::{Bench, Running, TRACEWIRE, at_home, eventually, signal, text, tracewire};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run(home: &Path, args: &[&str]) -> Output {
    tracewire(home).args(args).stdin(Stdio::null()).output().unwrap()
}

fn script(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn an_unknown_option_is_not_a_command() {
    let home = tempfile::tempdir().unwrap();
    for command in ["run", "doctor", "worker"] {
        let output = run(home.path(), &[command, "--tiemout", "5", "--", "true"]);
        assert_eq!(output.status.code(), Some(2), "{command}: {}", text(&output));
        assert!(stderr(&output).contains("--tiemout"), "{}", text(&output));
    }
    let output = run(home.path(), &["run", "sh", "-c", "echo \"$0\"", "--json"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"--json\n"[..]), "{}", text(&output));
}

#[test]
fn a_command_that_cannot_start_is_explained_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let orphan = script(home.path(), "orphan", "#!/no/such/interpreter -x\n");
    let windows = script(home.path(), "windows", "#!/bin/sh\r\necho\r\n");
    for (command, code, words) in [
        ("no-such-command-at-all", 127, "command not found"),
        (folder.to_str().unwrap(), 126, "is a directory"),
        (orphan.to_str().unwrap(), 127, "its interpreter /no/such/interpreter was not found"),
        (windows.to_str().unwrap(), 127, "its interpreter /bin/sh\\r was not found"),
    ] {
        let output = run(home.path(), &["run", "--", command]);
        let said = stderr(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{}", text(&output));
        assert!(said.contains(words) && !said.contains("chmod"), "{said}");
    }
    let listed = run(home.path(), &["trace", "list"]);
    assert!(!text(&listed).contains("running"), "{}", text(&listed));
}

#[test]
fn a_script_without_interpreter_runs_in_the_shell() {
    let home = tempfile::tempdir().unwrap();
    let path = script(home.path(), "plain-script", "echo \"$1\"; exit 3\n");
    let output = run(home.path(), &["run", "--", path.to_str().unwrap(), "a b"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"a b\n"[..]), "{}", text(&output));
    let mut by_name = tracewire(home.path());
    let path = std::env::join_paths([home.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let output = by_name.args(["run", "--", "plain-script", "x"]).env("PATH", path).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"x\n"[..]), "{}", text(&output));
    // A program of another machine is not one.
    let foreign = script(home.path(), "foreign", "\u{7f}ELF\0\0\0\0");
    assert_eq!(run(home.path(), &["run", "--", foreign.to_str().unwrap()]).status.code(), Some(126));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let bench = Bench::new();
    assert!(bench.run(&["--rollout", "ro-full"], &["true"]).status.success());
    for args in [
        &["--help"][..],
        &["--version"],
        &["trace", "list"],
        &["trace", "list", "--json"],
        &["trace", "show", "ro-full"],
        &["ca", "path"],
        &["ca", "export", "--format", "der"],
        &["env"],
        &["serve", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--store", "memory:"],
        &["mock"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = tracewire(bench.home()).args(args).stdout(full).output().unwrap();
        assert!(!output.status.success(), "{args:?}");
    }
}

#[test]
fn a_rollout_whose_run_was_killed_is_not_running() {
    let home = tempfile::tempdir().unwrap();
    let ready = home.path().join("ready");
    let mut killed = tracewire(home.path());
    killed.args(["run", "--rollout", "ro-killed", "--", "sh", "-c"]);
    killed.arg(format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60", ready.display()));
    let mut killed = killed.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually(|| ready.exists().then_some(()));
    let status = || {
        let output = run(home.path(), &["trace", "list", "--json"]);
        let rollouts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let rollout = rollouts.as_array().unwrap().iter().find(|rollout| rollout["rollout_id"] == "ro-killed");
        rollout.unwrap()["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(), "running");
    killed.kill().unwrap();
    killed.wait().unwrap();
    Command::new("kill").arg(fs::read_to_string(&ready).unwrap().trim()).status().unwrap();
    assert_eq!(status(), "failed");
    // The next command with write access stores it.
    assert!(run(home.path(), &["run", "--", "true"]).status.success());
    assert_eq!(status(), "failed");
}

#[test]
fn what_the_command_left_running_is_named() {
    let home = tempfile::tempdir().unwrap();
    let pid = home.path().join("pid");
    let command = format!("setsid sleep 60 >/dev/null 2>&1 & echo $! > {}", pid.display());
    let output = run(home.path(), &["run", "--", "sh", "-c", &command]);
    let pid = fs::read_to_string(pid).unwrap();
    assert!(stderr(&output).contains("1 process that it started is still running"), "{}", text(&output));
    let _ = Command::new("kill").arg(pid.trim()).status();
    // A timeout ends it, also outside the process group.
    let command = format!("setsid sleep 60 >/dev/null 2>&1 & echo $! > {}; wait", home.path().join("pid").display());
    let output = run(home.path(), &["run", "--timeout", "0.5", "--", "sh", "-c", &command]);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output));
    assert!(!stderr(&output).contains("still running"), "{}", text(&output));
}

#[test]
fn ignored_signals_stay_ignored() {
    let home = tempfile::tempdir().unwrap();
    let mut shell = at_home(Command::new("sh"), home.path());
    let script =
        "trap '' HUP INT; exec \"$0\" run -- sh -c 'kill -HUP $PPID; kill -INT $PPID; kill -HUP $$; echo lives'";
    let output = shell.args(["-c", script, TRACEWIRE]).stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"lives\n"[..]), "{}", text(&output));
}

#[test]
fn traces_are_found_by_prefix_and_latest_without_write_access() {
    let bench = Bench::new();
    let url = format!("{}/echo", bench.https());
    for (rollout, attempt) in [("ro-alpha", "at-one"), ("ro-alter", "at-two")] {
        assert!(bench.run(&["--rollout", rollout, "--attempt", attempt], &["curl", "-sS", &url]).status.success());
    }
    let before = fs::read(bench.store()).unwrap();
    let show = |args: &[&str]| tracewire(bench.home()).args(["trace", "show"]).args(args).output().unwrap();
    for (args, words) in [
        (&["latest"][..], "/echo"),
        (&["ro-alp"], "/echo"),
        (&["ro-alpha", "--json"], "\"ro-alpha\""),
        (&["ro-alpha", "--attempt", "at-o", "--json"], "\"at-one\""),
        (&["ro-alpha", "--attempt", "latest"], "/echo"),
    ] {
        let output = show(args);
        assert!(output.status.success() && text(&output).contains(words), "{args:?}: {}", text(&output));
    }
    for (args, words) in [
        (&["ro-al"][..], "several rollout ids: ro-al"),
        (&["ro-x"], "has no rollout ro-x"),
        (&[""], "has no rollout"),
        (&["ro-alpha", "--attempt", "at-two"], "has no attempt at-two; it has at-one"),
    ] {
        let output = show(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", text(&output));
    }
    assert_eq!(fs::read(bench.store()).unwrap(), before, "the store was changed");
}

#[test]
fn the_timeline_says_why_a_call_failed() {
    let bench = Bench::new();
    let output = bench.run(&[], &["curl", "-sS", "http://127.0.0.1:9/"]);
    assert!(stderr(&output).contains("connection_refused: Connection refused"), "{}", text(&output));
    assert!(stderr(&output).contains("check that the"), "{}", text(&output));
    let other = bench.home().join("mock-ca.pem");
    let rejects = ["curl", "-sS", "--cacert", other.to_str().unwrap(), &bench.https()];
    let output = bench.run(&[], &rejects);
    assert!(stderr(&output).contains("rejected the proxy's certificate: set"), "{}", text(&output));
    let output = tracewire(bench.home()).args(["doctor", "--", "curl", "-sS", "http://127.0.0.1:9/"]).output().unwrap();
    assert!(text(&output).contains("✗ failed: 127.0.0.1, 1 call"), "{}", text(&output));
}

#[test]
fn env_checks_the_proxy_and_has_a_way_back() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &["env", "--proxy", "banana"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(stderr(&output).contains("http://HOST:PORT"), "{}", text(&output));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = run(home.path(), &["env", "--proxy", &free.to_string()]);
    assert!(output.status.success() && stderr(&output).contains("nothing listens on"), "{}", text(&output));

    let script = "env | sort > \"$1/before\"; eval \"$(\"$0\" env --proxy 127.0.0.1:9)\"; test -n \"$https_proxy\" || exit 1; \
                  eval \"$(\"$0\" env --unset)\"; env | sort > \"$1/after\"";
    let mut shell = at_home(Command::new("bash"), home.path());
    shell.args(["-c", script, TRACEWIRE]).arg(home.path());
    shell
        .env("HTTPS_PROXY", "http://corp:3128")
        .env("all_proxy", "socks5://corp:1080")
        .env("NODE_OPTIONS", "--inspect");
    shell.env("JAVA_TOOL_OPTIONS", "-Xmx1g").env("PYTHONPATH", "/mine").env("_", "");
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let variables = |name: &str| {
        let all = fs::read_to_string(home.path().join(name)).unwrap();
        all.lines().filter(|line| !line.starts_with("_=")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(variables("before"), variables("after"));
}

#[test]
fn env_has_the_token_and_a_complete_pod() {
    let home = tempfile::tempdir().unwrap();
    let mut command = tracewire(home.path());
    let output = command.args(["env", "--format", "json"]).env("TRACEWIRE_TOKEN", "a b@c").output().unwrap();
    let variables: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(variables["set"]["HTTPS_PROXY"], "http://tracewire:a%20b%40c@127.0.0.1:8080");
    let pod = run(home.path(), &["env", "--format", "k8s"]);
    let manifest = String::from_utf8_lossy(&pod.stdout);
    for part in ["apiVersion: v1", "kind: Pod", "  containers:", "      env:", "      volumeMounts:", "  volumes:"] {
        assert!(manifest.lines().any(|line| line == part), "{part}: {manifest}");
    }
    assert!(
        stderr(&pod).contains("the proxy runs elsewhere") && !stderr(&pod).contains("run.loopback ="),
        "{}",
        text(&pod)
    );
}

#[test]
fn the_log_has_the_format_that_was_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let with = |name: &str, value: &str| {
        let mut command = tracewire(home.path());
        command.args(["run", "--store", "memory:", "--", "true"]).env("TRACEWIRE_LOG", "debug").env(name, value);
        command.output().unwrap()
    };
    let text_log = with("NO_COLOR", "");
    assert!(stderr(&text_log).contains("DEBUG") && !stderr(&text_log).contains('\u{1b}'), "{}", text(&text_log));
    let json = with("TRACEWIRE_LOG_FORMAT", "json");
    let first: serde_json::Value = serde_json::from_str(stderr(&json).lines().next().unwrap()).unwrap();
    assert_eq!(first["level"], "DEBUG");
    for (name, value, words) in [
        ("TRACEWIRE_LOG_FORMAT", "xml", "use text or json"),
        ("TRACEWIRE_LOG", "infoo", "`infoo` is not a log level; use off, error"),
    ] {
        let refused = with(name, value);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(stderr(&refused).contains(words), "{}", text(&refused));
    }
}

#[test]
fn a_key_that_should_expire_needs_a_signing_key() {
    let bench = Bench::new();
    let server = bench.serve(&[]);
    let key = |server: &Running, args: &[&str]| {
        tracewire(bench.home()).args(["key", "ro-1", "--server", &server.url("server")]).args(args).output().unwrap()
    };
    assert!(key(&server, &[]).status.success());
    let refused = key(&server, &["--expires", "60"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(stderr(&refused).contains("gateway.signing_key"), "{}", text(&refused));
    let settings = bench.home().join("signing.toml");
    fs::write(&settings, "[gateway]\nsigning_key = \"s\"\n").unwrap();
    let store = bench.home().join("signing.db");
    let signing = bench.serve(&["--config", settings.to_str().unwrap(), "--store", store.to_str().unwrap()]);
    assert!(key(&signing, &["--expires", "60"]).status.success());
}

#[test]
fn ids_tokens_and_limits_are_checked() {
    let bench = Bench::new();
    for args in [&["run", "--rollout", "", "--", "true"][..], &["run", "--attempt", "a\nb", "--", "true"], &["key", ""]]
    {
        let output = run(bench.home(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
        assert!(stderr(&output).contains("an id must not "), "{args:?}: {}", text(&output));
    }
    let output = tracewire(bench.home()).args(["run", "true"]).env("TRACEWIRE_TOKEN", "a\nb").output().unwrap();
    assert!(stderr(&output).contains("control character"), "{}", text(&output));
    assert!(bench.run(&["--rollout", "ro-1"], &["true"]).status.success());
    assert!(text(&run(bench.home(), &["trace", "list", "--limit", "0"])).contains("ro-1"));
    let output = run(bench.home(), &["trace", "list", "--store", "memory:"]);
    assert!(!output.status.success(), "{}", text(&output));
    let output = run(bench.home(), &["doctor", "--", "no-such-command-at-all"]);
    assert_eq!((output.status.code(), stderr(&output).lines().count(), output.stdout.len()), (Some(1), 1, 0));
}

#[test]
fn a_call_without_access_is_refused_in_the_clients_format() {
    let bench = Bench::new();
    let settings = bench.home().join("tokens.toml");
    fs::write(&settings, "[[server.tokens]]\ntoken = \"t\"\n").unwrap();
    let server = bench.serve(&["--config", settings.to_str().unwrap()]);
    for (path, message) in [
        ("/v1/chat/completions", "/error/message"),
        ("/v1/messages", "/error/message"),
        ("/rollout/r/attempt/a/v1/messages", "/error/message"),
        ("/v1beta/models/m:generateContent", "/error/message"),
        ("/proxy/rollout/r/attempt/a/mode/train/openai/v1/chat/completions", "/detail"),
    ] {
        let url = format!("{}{path}", server.url("server"));
        let mut curl = at_home(Command::new("curl"), bench.home());
        let output = curl.args(["-s", "-w", "\n%{http_code}", "-d", "{}", &url]).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let (body, status) = output.rsplit_once('\n').unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(status, "401", "{path}: {body}");
        let message = body.pointer(message).and_then(|message| message.as_str());
        assert!(message.is_some_and(|message| message.contains("Invalid or missing API key")), "{path}: {body}");
    }
}

#[test]
fn relative_folders_work_from_anywhere() {
    let home = tempfile::tempdir().unwrap();
    let mut env = tracewire(Path::new("data"));
    env.args(["env", "--proxy", "127.0.0.1:9"]).current_dir(home.path());
    let output = env.output().unwrap();
    let script = format!("{}\ncd /; test -s \"$SSL_CERT_FILE\"", String::from_utf8_lossy(&output.stdout));
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success(), "{}", text(&output));
    fs::create_dir(home.path().join("tmp")).unwrap();
    let mut run = tracewire(home.path());
    run.args(["run", "--", "sh", "-c", "cd /; test -s \"$SSL_CERT_FILE\""])
        .env("TMPDIR", "tmp")
        .current_dir(home.path());
    let output = run.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn clients_with_an_empty_user_name_still_send_the_token() {
    let bench = Bench::new();
    let url = format!("{}/echo", bench.http());
    let program = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()";
    let mut run = tracewire(bench.home());
    run.args(["run", "--rollout", "ro-token", "--attempt", "at.1", "--", "python3", "-c", program, &url]);
    let output = run.env("TRACEWIRE_TOKEN", "s3cret").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let span = bench.exchanges("ro-token", 1).remove(0);
    assert_eq!(
        (&span["attempt_id"], &span["attributes"]["tracewire.identity.source"]),
        (&"at.1".into(), &"binding".into())
    );
}

#[test]
fn a_command_that_is_stopped_at_its_limit_is_told() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &["run", "--timeout", "0.2", "--", "sleep", "60"]);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output));
    assert!(stderr(&output).contains("sleep was stopped because it ran longer than 0.2 s"), "{}", text(&output));
}

#[test]
fn a_run_removes_what_a_killed_one_left() {
    let home = tempfile::tempdir().unwrap();
    let start = |command: &[&str]| {
        let mut program = tracewire(home.path());
        program.env("TMPDIR", home.path()).args(["run", "--"]).args(command);
        program
    };
    let folders = || {
        let entries = fs::read_dir(home.path()).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("tracewire-")).count()
    };
    let mut killed = start(&["sh", "-c", "echo $$; exec sleep 60"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(killed.stdout.take().unwrap()).read_line(&mut line).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(start(&["true"]).status().unwrap().success());
    assert_eq!(folders(), 1, "its command still runs");
    signal(line.trim().parse().unwrap(), rustix::process::Signal::KILL);
    eventually(|| (start(&["true"]).status().unwrap().success() && folders() == 0).then_some(()));
}

#[test]
fn a_container_gets_no_paths_of_this_machine() {
    let home = tempfile::tempdir().unwrap();
    let corporate = home.path().join("corporate.pem");
    fs::write(&corporate, "-- corporate --\n").unwrap();
    let mut command = tracewire(home.path());
    command
        .args(["env", "--format", "docker"])
        .env("NODE_OPTIONS", "--require /mine/hook.cjs")
        .env("PYTHONPATH", "/mine");
    command.env("JAVA_TOOL_OPTIONS", "-javaagent:/mine.jar").env("SSL_CERT_FILE", &corporate).env("NO_PROXY", "corp");
    let output = command.output().unwrap();
    // The lines are words of a shell.
    let words =
        format!("for word in {}; do echo \"$word\"; done", String::from_utf8_lossy(&output.stdout).replace('\n', " "));
    let words = Command::new("sh").args(["-c", &words]).output().unwrap();
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains("--env=NODE_OPTIONS=--require /tracewire/node.cjs\n"), "{words}");
    assert!(
        words.contains("--env=SSL_CERT_FILE=/tracewire/SSL_CERT_FILE.pem\n") && words.contains("NO_PROXY=corp,"),
        "{words}"
    );
    assert!(!words.contains("mine") && !words.contains("corporate.pem"), "{words}");
    let bundle = fs::read_to_string(home.path().join("ca/env/SSL_CERT_FILE.pem")).unwrap();
    assert!(bundle.starts_with("-- corporate --"), "the certificates themselves are there");
}

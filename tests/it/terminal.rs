//! What people see in a terminal: conversations, the pager, colours, live spans, and a quiet `run`.

use crate::support::{Bench, python, signal, text, tracewire};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

/// Records a call of the mock.
fn record(bench: &Bench, flags: &[&str], content: &str) -> Output {
    let url = format!("{}/v1/chat/completions", bench.https());
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{content}"}}]}}"#);
    let json = "content-type: application/json";
    let output = bench.run(flags, &["curl", "-sS", "-o", "/dev/null", "-H", json, "-d", &body, &url]);
    assert!(output.status.success(), "{}", text(&output));
    output
}

fn show(bench: &Bench, flags: &[&str]) -> Command {
    let mut command = tracewire(bench.home());
    command.args(["trace", "show", "latest"]).args(flags);
    command
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command on a terminal of 100 columns and 4 lines. Returns what the terminal shows.
fn on_terminal(bench: &Bench, arguments: &[&str], pager: &str) -> String {
    let script = "
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    # The parent has set the size when it writes this line.
    sys.stdin.readline()
    os.execvp(sys.argv[1], sys.argv[1:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 4, 100, 0, 0))
os.write(terminal, b'\\n')
while True:
    try:
        data = os.read(terminal, 65536)
    except OSError:
        break
    if not data:
        break
    sys.stdout.buffer.write(data)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    let inner = tracewire(bench.home());
    let mut command = Command::new(python());
    command.args(["-c", script]).arg(inner.get_program()).args(arguments).env("PAGER", pager).env("TERM", "xterm");
    command.env_remove("NO_COLOR").env_remove("COLUMNS").env_remove("TRACEWIRE_PAGER");
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    stdout(&mut command).replace("\r\n", "\n")
}

#[test]
fn conversations_are_shown_as_people_read_them() {
    let bench = Bench::new();
    record(&bench, &[], "say something");
    let shown = stdout(&mut show(&bench, &["--messages"]));
    assert!(shown.starts_with("── user ─") && shown.contains("\nsay something\n── assistant · call "), "{shown}");
    assert!(!shown.contains(['{', '\u{1b}']), "{shown}");
}

#[test]
fn long_output_goes_through_the_pager() {
    let bench = Bench::new();
    record(&bench, &[], "one\\ntwo\\nthree");
    let pager = "sed 's/^/page: /'";
    let messages = ["trace", "show", "latest", "--messages", "--color", "never"];
    let shown = on_terminal(&bench, &messages, pager);
    let lines: Vec<&str> = shown.lines().filter(|line| line.contains("two") || line.contains('─')).collect();
    assert!(lines.len() > 2 && lines.iter().all(|line| line.starts_with("page: ")), "{shown}");
    assert!(shown.lines().any(|line| line.chars().count() == 100 + "page: ".len()), "as wide as the terminal: {shown}");
    for (arguments, pager) in [
        ([&messages[..], &["--no-pager"]].concat(), pager),
        (vec!["trace", "list", "--limit", "1", "--color", "never"], pager),
        (messages.to_vec(), "cat"),
        (messages.to_vec(), "no-such-pager 2> /dev/null"),
    ] {
        let shown = on_terminal(&bench, &arguments, pager);
        assert!(!shown.contains("page: ") && shown.lines().count() > 1, "{arguments:?}: {shown}");
    }
    assert!(!stdout(show(&bench, &["--messages"]).env("PAGER", pager)).contains("page: "));
}

#[test]
fn colours_are_as_the_user_wants_them() {
    let bench = Bench::new();
    record(&bench, &[], "x");
    let coloured = |command: &mut Command| stdout(command).contains('\u{1b}');
    assert!(!coloured(&mut show(&bench, &[])) && coloured(&mut show(&bench, &["--color", "always"])));
    assert!(coloured(show(&bench, &[]).env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR")));
    let is_coloured = |arguments: &[&str]| on_terminal(&bench, arguments, "cat").contains('\u{1b}');
    assert!(is_coloured(&["trace", "show", "latest"]));
    assert!(!is_coloured(&["trace", "show", "latest", "--color", "never"]));
}

#[test]
fn a_quiet_run_tells_only_what_went_wrong() {
    let bench = Bench::new();
    let quiet = record(&bench, &["--quiet"], "x");
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{}", text(&quiet));
    let usual = record(&bench, &["--rollout", "ro-usual"], "x");
    assert!(text(&usual).contains("to look at it: tracewire ui ro-usual"), "{}", text(&usual));
    let failed = bench.run(&["--quiet"], &["no-such-command"]);
    assert!(text(&failed).contains("no-such-command"), "{}", text(&failed));
    assert_eq!(bench.exchanges("ro-usual", 1).len(), 1);
}

#[test]
fn diff_shows_where_two_rollouts_part() {
    let bench = Bench::new();
    for (rollout, content) in [("ro-one", "x"), ("ro-same", "x"), ("ro-other", "y")] {
        record(&bench, &["--rollout", rollout], content);
    }
    let diff = |arguments: &[&str]| tracewire(bench.home()).arg("diff").args(arguments).output().unwrap();
    let same = diff(&["ro-one", "ro-same"]);
    assert!(
        same.status.success() && text(&same).contains("The conversations are the same: 2 messages."),
        "{}",
        text(&same)
    );
    let parted = diff(&["ro-one", "ro-other"]);
    let shown = text(&parted);
    assert_eq!(parted.status.code(), Some(1), "{shown}");
    for line in
        ["A  ro-one  succeeded · ", "The first messages differ.", "── A · message 1 · user · call ", "  assistant: "]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&diff(&["ro-one", "ro-o", "--json"]).stdout).unwrap_or_default();
    assert_eq!(json, serde_json::Value::Null, "ro-o is the beginning of two ids");
    let json: serde_json::Value = serde_json::from_slice(&diff(&["ro-one", "ro-ot", "--json"]).stdout).unwrap();
    assert_eq!((&json["rollouts"][1], &json["difference"]["common_messages"]), (&"ro-other".into(), &0.into()));
    assert_eq!(json["difference"]["messages"][1][0]["parts"][0]["content"], "y");
    let missing = diff(&["ro-one", "ro-none"]);
    assert!(
        missing.status.code() == Some(2) && text(&missing).contains("has no rollout ro-none"),
        "{}",
        text(&missing)
    );
}

#[test]
fn tail_prints_spans_as_they_are_stored() {
    let bench = Bench::new();
    record(&bench, &["--rollout", "ro-before"], "x");
    let start = |query: &[&str]| {
        let mut command = tracewire(bench.home());
        command.args(["tail"]).args(query).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tail = command.spawn().unwrap();
        let mut told = BufReader::new(tail.stderr.take().unwrap());
        told.read_line(&mut String::new()).unwrap();
        let lines = BufReader::new(tail.stdout.take().unwrap()).lines();
        (tail, lines, told)
    };
    let (mut all, mut lines, _all_told) = start(&[]);
    let (mut some, mut json_lines, _some_told) = start(&["--json", "ro-second", "text:x"]);
    record(&bench, &["--rollout", "ro-first"], "x");
    record(&bench, &["--rollout", "ro-second"], "x");
    let mut printed = Vec::new();
    while !printed.last().is_some_and(|line: &String| line.contains("ro-second") && line.contains("chat")) {
        printed.push(lines.next().unwrap().unwrap());
    }
    assert!(printed.iter().any(|line| line.contains("ro-first") && line.contains(" tokens")), "{printed:#?}");
    assert!(!printed.iter().any(|line| line.contains("ro-before")), "{printed:#?}");
    let first: serde_json::Value = serde_json::from_str(&json_lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["rollout_id"], "ro-second");
    for child in [&mut all, &mut some] {
        signal(child.id(), Signal::TERM);
        assert!(child.wait().unwrap().success());
    }
    let wrong = tracewire(bench.home()).args(["tail", "modle:x"]).output().unwrap();
    assert!(wrong.status.code() == Some(2) && text(&wrong).contains("^^^^^"), "{}", text(&wrong));
}

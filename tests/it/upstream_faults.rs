//! Faulty endpoints: the client gets the right status or a clean close, and the span has the cause.

use crate::support::{Bench, Running, connect, endpoint, read_head, say};
#[cfg(target_os = "linux")]
use crate::support::{TRACEWIRE, at_home, skipped};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
#[cfg(target_os = "linux")]
use std::{
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

fn get(serve: &Running, target: SocketAddr, rollout: &str) -> String {
    let request = format!(
        "GET http://{target}/x HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: {rollout}\r\nConnection: close\r\n\r\n"
    );
    say(serve.address("proxy"), request.as_bytes())
}

fn only_span(bench: &Bench, rollout: &str) -> Value {
    bench.exchanges(rollout, 1).remove(0)
}

#[test]
fn a_reset_in_the_head_is_a_502_with_a_span() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = endpoint(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-");
        let _ = stream.shutdown(Shutdown::Both);
    });
    let answer = get(&serve, target, "ro-head");
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("proxy-status: tracewire; error="), "{answer}");
    let span = only_span(&bench, "ro-head");
    assert_eq!(span["attributes"]["tracewire.outcome"], "failed");
    assert_eq!(span["status"]["status_code"], "ERROR");
}

#[test]
fn names_that_do_not_resolve_cost_their_own_requests_only() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let proxy = serve.address("proxy");
    let lost: Vec<_> = (0..20)
        .map(|number| {
            std::thread::spawn(move || {
                let host = format!("host-{number}.invalid");
                say(proxy, format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nx-rollout-id: ro-lost\r\nConnection: close\r\n\r\n").as_bytes())
            })
        })
        .collect();
    for _ in 0..20 {
        let answer = get(&serve, bench.mock.address("http"), "ro-others");
        assert!(!answer.contains("dns_"), "{answer}");
    }
    for answer in lost {
        let answer = answer.join().unwrap();
        let told = (answer.contains(" 502 ") && answer.contains("dns_error"))
            || (answer.contains(" 504 ") && answer.contains("dns_timeout"));
        assert!(told && answer.contains("host-"), "{answer}");
    }
    for span in bench.exchanges("ro-lost", 20) {
        let error = span["attributes"]["error.type"].as_str().unwrap_or_default();
        assert!(error.starts_with("dns_"), "{span:#}");
    }
    assert_eq!(bench.exchanges("ro-others", 20).len(), 20);
}

#[test]
fn an_endpoint_that_speaks_no_http_is_told_by_its_first_bytes() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let other = "the response does not begin with HTTP/1.1 or HTTP/1.0";
    for (number, (answer, cause)) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], other),
        (b"220 mail ESMTP\r\n", other),
        (b"-ERR unknown command\r\n", other),
        (b"{", other),
        (b"<html><body>hi</body></html>", other),
        (b"\0\0\0\x04\0\0\0\0\0", other),
        (b"HTTP/9", other),
        (b"\x15\x03\x01\0\x02\x02\x28", "the endpoint speaks TLS; use https"),
        (b"HTTP/1.1 abc OK\r\n", "the status line has no status code"),
        (b"HTTP/1.9 200 OK\r\n", "the version is not HTTP/1.1 or HTTP/1.0"),
    ]
    .into_iter()
    .enumerate()
    {
        // It then waits for its client.
        let target = endpoint(move |mut stream| {
            read_head(&mut stream);
            stream.write_all(answer).unwrap();
            let _ = stream.read(&mut [0]);
        });
        let rollout = format!("ro-other-{number}");
        let got = get(&serve, target, &rollout);
        assert!(got.starts_with("HTTP/1.1 502") && got.contains(cause), "{}: {got}", String::from_utf8_lossy(answer));
        assert_eq!(only_span(&bench, &rollout)["attributes"]["error.type"], "http_protocol_error");
    }
}

#[test]
fn a_truncated_chunked_body_reaches_the_client_truncated() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = endpoint(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let _ = stream.shutdown(Shutdown::Both);
    });
    let answer = get(&serve, target, "ro-chunk");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains("0\r\n\r\n"), "a truncated body must not look complete: {answer}");
    let span = only_span(&bench, "ro-chunk");
    assert_eq!(span["attributes"]["error.type"], "http_response_incomplete");
}

#[test]
fn a_body_reaches_the_client_up_to_what_is_faulty_in_it() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (number, fault) in ["0\r\nX : 1\r\n\r\n", "0\r\nContent-Length: 3\r\n\r\n", "zz\r\n"].into_iter().enumerate() {
        let target = endpoint(move |mut stream| {
            read_head(&mut stream);
            let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{fault}");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let rollout = format!("ro-fault-{number}");
        let got = get(&serve, target, &rollout);
        assert!(got.ends_with("3\r\nabc\r\n"), "{fault:?}: {got:?}");
        assert_eq!(only_span(&bench, &rollout)["attributes"]["error.type"], "http_protocol_error");
    }
}

#[test]
fn fewer_bytes_than_declared_are_an_error_and_more_are_not_passed() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let fewer = endpoint(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        let _ = stream.shutdown(Shutdown::Both);
    });
    get(&serve, fewer, "ro-fewer");
    assert_eq!(only_span(&bench, "ro-fewer")["attributes"]["error.type"], "http_response_incomplete");
    let more = endpoint(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef");
    });
    let answer = get(&serve, more, "ro-more");
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert_eq!(only_span(&bench, "ro-more")["attributes"]["http.response.body.size"], 3);
}

#[test]
fn a_dead_host_and_an_unknown_one_are_explained() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let answer = get(&serve, dead, "ro-dead");
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("connection_refused"), "{answer}");
    assert_eq!(only_span(&bench, "ro-dead")["attributes"]["error.type"], "connection_refused");
    let answer =
        say(serve.address("proxy"), b"CONNECT nowhere.invalid:443 HTTP/1.1\r\nHost: nowhere.invalid:443\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("dns_error"), "{answer}");
}

/// A listener with a full queue of connections. The system discards further SYNs, so connecting to it never ends.
#[cfg(target_os = "linux")]
fn black_hole(address: &str) -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let queued = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, queued)
}

/// A command that runs `tracewire` with another /etc/hosts; `None` where the system forbids the namespace for it.
#[cfg(target_os = "linux")]
fn with_hosts(hosts: &Path) -> Option<Command> {
    let in_namespace = |run: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"").arg(hosts).args(run);
        command
    };
    let allowed = in_namespace(&["true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    allowed.then(|| in_namespace(&[TRACEWIRE]))
}

#[test]
#[cfg(target_os = "linux")]
fn an_address_that_never_answers_does_not_hide_the_next_one() {
    let bench = Bench::new();
    let hosts = bench.home().join("hosts");
    std::fs::write(&hosts, "127.0.0.2 many.test\n127.0.0.3 many.test\n").unwrap();
    let Some(mut serve) = with_hosts(&hosts) else {
        return skipped("a host with two addresses", "the system forbids the namespace for another /etc/hosts");
    };
    let (hole, _queued) = black_hole("127.0.0.2:0");
    let port = hole.local_addr().unwrap().port();
    let answering = TcpListener::bind(("127.0.0.3", port)).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = answering.accept().unwrap();
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
    serve.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0"]);
    let serve = Running::start(at_home(serve, bench.home()));
    let request = format!(
        "GET http://many.test:{port}/ HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-many\r\nConnection: close\r\n\r\n"
    );
    let answer = say(serve.address("proxy"), request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert_eq!(only_span(&bench, "ro-many")["attributes"]["network.peer.address"], "127.0.0.3");
}

#[test]
fn an_untrusted_certificate_is_a_502_that_says_what_to_do() {
    let bench = Bench::new();
    // Without the mock's CA among the roots.
    let mut run = crate::support::tracewire(bench.home());
    let url = format!("{}/echo", bench.https());
    run.args(["run", "--rollout", "ro-tls", "--", "curl", "-sS", &url]);
    let output = run.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("tls_certificate_error") && stdout.contains("--upstream-ca"), "{stdout}");
    let span = only_span(&bench, "ro-tls");
    assert_eq!(span["attributes"]["error.type"], "tls_certificate_error");
}

#[test]
fn interim_responses_trailers_and_empty_answers_pass() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = endpoint(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n");
    });
    let request =
        format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: ro-103\r\nConnection: close\r\n\r\n");
    let mut stream = connect(serve.address("proxy"));
    stream.write_all(request.as_bytes()).unwrap();
    let first = read_head(&mut stream);
    assert!(first.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>"), "{first}");
    let second = read_head(&mut stream);
    assert!(second.starts_with("HTTP/1.1 204") && second.contains("X-Kept: yes"), "{second}");
    assert_eq!(only_span(&bench, "ro-103")["attributes"]["tracewire.response.informational"], serde_json::json!([103]));
}

//! The smuggling table, row by row, and the promise that no cut of the bytes changes a verdict.

use super::head::ResponseTo;
use super::scanner::{Next, Scan, Scanner};
use proptest::prelude::*;

fn requests(bytes: &[u8]) -> Scan {
    Scanner::of_requests().scan(bytes, ResponseTo::Other)
}

fn refused(text: &str) -> &'static str {
    match requests(text.as_bytes()).next {
        Next::BadHead(fault) | Next::BadBody(fault) => fault.cause,
        other => panic!("{text:?} passed: {other:?}"),
    }
}

fn refused_response(text: &str) -> &'static str {
    match Scanner::of_responses().scan(text.as_bytes(), ResponseTo::Other).next {
        Next::BadHead(fault) | Next::BadBody(fault) => fault.cause,
        other => panic!("{text:?} passed: {other:?}"),
    }
}

fn post(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn answer(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

#[test]
fn what_is_ambiguous_is_refused_both_ways() {
    let rows = [
        ("X Y: 1\r\n", "a field name is not a token"),
        ("X : 1\r\n", "a field name is not a token"),
        (": 1\r\n", "a field name is not a token"),
        ("X\u{e9}: 1\r\n", "a field name is not a token"),
        ("no colon\r\n", "a field line without a colon"),
        ("X: 1\r\n folded\r\n", "a folded field line"),
        ("X: a\0b\r\n", "a field value has control characters"),
        ("X: a\rb\r\n", "a bare CR in the message head"),
        ("X: a\nY: b\r\n", "a bare LF in the message head"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "both Transfer-Encoding and Content-Length"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "both Transfer-Encoding and Content-Length"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "several Transfer-Encoding fields"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "several Content-Length fields"),
        ("Content-Length: 5, 5\r\n", "Content-Length is not a plain number"),
        ("Content-Length: +5\r\n", "Content-Length is not a plain number"),
        ("Content-Length: -5\r\n", "Content-Length is not a plain number"),
        ("Content-Length: 0x5\r\n", "Content-Length is not a plain number"),
        ("Content-Length: 5 5\r\n", "Content-Length is not a plain number"),
        ("Content-Length:\r\n", "Content-Length is not a plain number"),
        ("Content-Length: 18446744073709551616\r\n", "Content-Length is not a plain number"),
        ("Transfer-Encoding: xchunked\r\n", "Transfer-Encoding is not chunked"),
        ("Transfer-Encoding: chunked, gzip\r\n", "Transfer-Encoding is not chunked"),
        ("Transfer-Encoding: \u{212a}chunked\r\n", "Transfer-Encoding is not chunked"),
        ("Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "a chunk size that is not hexadecimal"),
        ("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", "a chunk size that overflows"),
        ("Transfer-Encoding: chunked\r\n\r\n1\nX", "a chunk size that is not hexadecimal"),
        ("Transfer-Encoding: chunked\r\n\r\n1\r\nXX\r\n", "a chunk longer than its size"),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n", "a framing field in the trailers"),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\n\r\n", "a bare LF in the trailers"),
    ];
    for (fields, cause) in rows {
        assert_eq!(refused(&post(fields)), cause, "request {fields:?}");
        assert_eq!(refused_response(&answer(fields)), cause, "response {fields:?}");
    }
    let extension = format!("Transfer-Encoding: chunked\r\n\r\n1;{}\r\n", "x".repeat(5000));
    assert_eq!(refused(&post(&extension)), "a chunk extension over 4 KiB");
}

#[test]
fn what_only_one_side_can_do_wrong() {
    let rows = [
        ("GET / HTTP/1.1\r\n\r\n", "no Host field in an HTTP/1.1 request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "several Host fields"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "the request line is not METHOD TARGET VERSION"),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "the request line is not METHOD TARGET VERSION"),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "the method is not a token"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "the version is not HTTP/1.1 or HTTP/1.0"),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in an HTTP/1.0 message"),
        ("GET / HTTP/1.1\nHost: a\n\n", "a bare LF in the message head"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "the target * is for OPTIONS only"),
    ];
    for (text, cause) in rows {
        assert_eq!(refused(text), cause, "{text:?}");
    }
    assert_eq!(refused(&post("Transfer-Encoding: identity\r\n")), "Transfer-Encoding in a request must be chunked");
    let connect = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(refused(connect), "a CONNECT request must not have a body");
    let rows = [
        ("HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in a 1xx or 204 response"),
        ("HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in a 1xx or 204 response"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in an HTTP/1.0 message"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "the status line has no status code"),
        ("ICY 200 OK\r\n\r\n", "the response does not begin with HTTP/1.1 or HTTP/1.0"),
        ("HTTP/1.2 200 OK\r\n\r\n", "the version is not HTTP/1.1 or HTTP/1.0"),
        // These are no whole heads.
        ("S", "the response does not begin with HTTP/1.1 or HTTP/1.0"),
        ("\r\nHTTP/3", "the response does not begin with HTTP/1.1 or HTTP/1.0"),
        ("\x16\x03\x01", "the endpoint speaks TLS; use https"),
        ("HTTP/1.1 abc\r\n", "the status line has no status code"),
        ("HTTP/1.1 200 OK\r\nno field\r\n", "a field line without a colon"),
        ("HTTP/1.1 200 OK\r\nA: 1\r\nB : 2\r\nC", "a field name is not a token"),
    ];
    for (text, cause) in rows {
        assert_eq!(refused_response(text), cause, "{text:?}");
    }
}

#[test]
fn sizes_have_their_own_rules() {
    let rule = |text: String| match requests(text.as_bytes()).next {
        Next::BadHead(fault) => fault.rule,
        other => panic!("{other:?}"),
    };
    let long = "x".repeat(300 * 1024);
    assert_eq!(
        rule(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..70_000])),
        crate::error::FramingRule::TargetTooLong
    );
    assert_eq!(rule(format!("GET /{long}")), crate::error::FramingRule::TargetTooLong);
    assert_eq!(rule(post(&format!("X: {long}"))), crate::error::FramingRule::HeadTooLarge);
    assert_eq!(rule(post(&"X: 1\r\n".repeat(513))), crate::error::FramingRule::HeadTooLarge);
    assert_eq!(requests(post(&"X: 1\r\n".repeat(500)).as_bytes()).next, Next::More);
}

#[test]
fn pipelined_messages_are_followed_to_the_first_fault() {
    let good = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n\
                \r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let bad = "GET / HTTP/1.1\r\n\r\n";
    let mut scanner = Scanner::of_requests();
    let scan = scanner.scan(format!("{good}{bad}").as_bytes(), ResponseTo::Other);
    assert_eq!(scan.pass, good.len());
    assert!(matches!(scan.next, Next::BadHead(_)));
    assert_eq!(scanner.heads(), 3);
}

#[test]
fn a_change_of_protocol_stops_the_scan_until_it_is_decided() {
    let head = "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
    let mut scanner = Scanner::of_requests();
    let bytes = format!("{head}\0\u{1}raw");
    assert_eq!(scanner.scan(bytes.as_bytes(), ResponseTo::Other), Scan { pass: head.len(), next: Next::Switch });
    scanner.switched();
    assert_eq!(scanner.scan(b"\0\x01raw", ResponseTo::Other), Scan { pass: 5, next: Next::More });
    scanner.not_switched();
    assert!(matches!(scanner.scan(b"\0\x01raw\r\n\r\n", ResponseTo::Other).next, Next::BadHead(_)));
}

#[test]
fn a_length_may_begin_with_zeros() {
    for length in ["5", "05", "00000000000000000000000000005"] {
        let head = answer(&format!("Content-Length: {length}\r\n"));
        let two = format!("{head}hello{head}hello");
        let mut scanner = Scanner::of_responses();
        let scan = scanner.scan(two.as_bytes(), ResponseTo::Other);
        assert_eq!((scan, scanner.heads()), (Scan { pass: two.len(), next: Next::More }, 2), "{length}");
    }
}

#[test]
fn an_upgrade_offer_with_a_body_is_ignored_and_so_are_tls_and_h2c() {
    let next = |fields: &str, body: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{fields}\r\n{body}");
        requests(head.as_bytes()).next
    };
    for ignored in ["TLS/1.2", "tls/1.3", "h2c", "H2C, TLS/1.0", "TLS/1.2, HTTP/1.1"] {
        let taken = ignored.contains("HTTP/1.1");
        let expected = if taken { Next::Switch } else { Next::More };
        assert_eq!(next(&format!("Upgrade: {ignored}\r\n"), ""), expected, "{ignored}");
    }
    assert_eq!(next("Upgrade: websocket\r\nContent-Length: 0\r\n", ""), Next::Switch);
    assert_eq!(next("Upgrade: websocket\r\nContent-Length: 3\r\n", "abc"), Next::More);
    assert_eq!(next("Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), Next::More);
}

#[test]
fn a_reason_phrase_beyond_ascii_is_kept() {
    for (line, reason) in [
        (&b"HTTP/1.1 200 D\xe9j\xe0 vu"[..], Some(&b"D\xe9j\xe0 vu"[..])),
        ("HTTP/1.1 429 \u{592a}\u{591a}".as_bytes(), Some("\u{592a}\u{591a}".as_bytes())),
        (b"HTTP/1.1 200 OK", None),
        (b"HTTP/1.1 200", None),
        (b"HTTP/1.1 103 \xe9", None),
    ] {
        let mut scanner = Scanner::of_responses();
        scanner.scan(&[line, b"\r\n\r\n"].concat(), ResponseTo::Other);
        assert_eq!(scanner.take_reason().as_deref(), reason);
    }
}

#[test]
fn responses_without_a_body_have_none() {
    let head = answer("Content-Length: 5\r\n");
    let both = format!("{head}{head}");
    let mut scanner = Scanner::of_responses();
    assert_eq!(scanner.scan(both.as_bytes(), ResponseTo::Head).pass, both.len());
    assert_eq!(scanner.heads(), 2);
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n";
    let mut scanner = Scanner::of_responses();
    assert_eq!(scanner.scan(interim.as_bytes(), ResponseTo::Other), Scan { pass: interim.len(), next: Next::More });
    assert_eq!(scanner.heads(), 2);
}

#[test]
fn the_last_message_of_a_connection_is_known() {
    for (text, over) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
        ("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\na", false),
    ] {
        let mut scanner = Scanner::of_requests();
        scanner.scan(text.as_bytes(), ResponseTo::Other);
        assert_eq!(scanner.is_finished(), over, "{text:?}");
    }
}

/// Feeds `bytes` in pieces, as a connection would bring them.
fn in_pieces(mut scanner: Scanner, bytes: &[u8], cuts: &[usize]) -> (usize, Option<&'static str>, u64) {
    let (mut held, mut passed) = (Vec::new(), 0);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        held.extend_from_slice(&bytes[pair[0]..pair[1]]);
        let scan = scanner.scan(&held, ResponseTo::Other);
        passed += scan.pass;
        held.drain(..scan.pass);
        match scan.next {
            Next::More => {}
            Next::Rewritten(length, _) => {
                passed += length;
                held.drain(..length);
            }
            Next::Switch => scanner.not_switched(),
            Next::BadHead(fault) | Next::BadBody(fault) => return (passed, Some(fault.cause), scanner.heads()),
        }
    }
    (passed, None, scanner.heads())
}

proptest! {
    #[test]
    fn no_cut_changes_the_verdict(
        parts in prop::collection::vec(prop::sample::select(vec![
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbodyX\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "\r\n",
        ]), 0..6),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = parts.concat().into_bytes();
        let verdict = |cuts: &[usize]| in_pieces(Scanner::of_requests(), &bytes, cuts);
        prop_assert_eq!(verdict(&cuts), verdict(&[]));
    }

    #[test]
    fn no_cut_changes_the_verdict_on_a_response(
        parts in prop::collection::vec(prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nA: 1\r\n\r\nno\r\nxyz",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX: 1\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nA: 1\r\nB: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: 1\r\nno field\r\nB: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\n\r\n",
            "\r\n",
        ]), 0..6),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = parts.concat().into_bytes();
        let verdict = |cuts: &[usize]| in_pieces(Scanner::of_responses(), &bytes, cuts);
        prop_assert_eq!(verdict(&cuts), verdict(&[]));
    }

    #[test]
    fn any_bytes_get_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        let (passed, ..) = in_pieces(Scanner::of_requests(), &bytes, &cuts);
        prop_assert!(passed <= bytes.len());
    }
}

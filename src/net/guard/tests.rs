//! Unit tests of [`super`].

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn read(io: &mut GuardedIo) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let length = io.read(&mut buffer).await.unwrap();
    buffer[..length].to_vec()
}

#[tokio::test]
async fn a_faulty_head_is_replaced_and_reported() {
    let (mut agent, ours) = tokio::io::duplex(1024);
    let (mut io, guard) = GuardedIo::of_requests(Box::new(ours));
    let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    agent.write_all(&[good.as_slice(), b"GET /secret HTTP/1.1\r\n\r\nmore"].concat()).await.unwrap();
    assert_eq!(read(&mut io).await, good);
    assert_eq!(read(&mut io).await, REPLACEMENT);
    let more = tokio::time::timeout(Duration::from_millis(20), read(&mut io)).await;
    assert!(more.is_err(), "nothing behind it is read");
    assert_eq!(guard.begin_request(), None);
    assert!(guard.begin_request().is_some());
}

#[tokio::test]
async fn bytes_behind_an_upgrade_wait_for_its_response() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    for after in [AfterResponse::OtherProtocol, AfterResponse::Http] {
        let (mut agent, ours) = tokio::io::duplex(1024);
        let (mut io, guard) = GuardedIo::of_requests(Box::new(ours));
        agent.write_all(&[head.as_slice(), b"\0raw\r\n\r\n"].concat()).await.unwrap();
        assert_eq!(read(&mut io).await, head);
        let early = tokio::time::timeout(Duration::from_millis(20), read(&mut io)).await;
        assert!(early.is_err(), "nothing before the decision");
        assert_eq!(guard.begin_request(), None);
        guard.responded(after);
        let expected: &[u8] = if after == AfterResponse::Http { REPLACEMENT } else { b"\0raw\r\n\r\n" };
        assert_eq!(read(&mut io).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_is_reported_late_while_a_response_is_owed() {
    for (field, answered, within, after) in [
        ("", false, GRACE / 2, GRACE * 2),
        ("", true, Duration::ZERO, Duration::from_millis(1)),
        ("Connection: close\r\n", false, GRACE_AFTER_LAST_REQUEST / 2, GRACE_AFTER_LAST_REQUEST * 2),
    ] {
        let (mut agent, ours) = tokio::io::duplex(1024);
        let (mut io, guard) = GuardedIo::of_requests(Box::new(ours));
        agent.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n").as_bytes()).await.unwrap();
        read(&mut io).await;
        assert_eq!(guard.begin_request(), None);
        if answered {
            guard.responded(AfterResponse::Http);
        }
        agent.shutdown().await.unwrap();
        let early = tokio::time::timeout(within, read(&mut io)).await;
        assert_eq!(early.is_ok(), answered);
        assert_eq!(tokio::time::timeout(after, read(&mut io)).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn the_end_is_noticed_while_an_upgrade_is_undecided() {
    let (mut agent, ours) = tokio::io::duplex(1024);
    let (mut io, _guard) = GuardedIo::of_requests(Box::new(ours));
    let head = b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n";
    agent.write_all(head).await.unwrap();
    assert_eq!(read(&mut io).await, head);
    drop(agent);
    assert_eq!(read(&mut io).await, b"");
}

#[tokio::test]
async fn bytes_that_come_with_a_switch_are_not_held() {
    let (mut endpoint, ours) = tokio::io::duplex(1024);
    let (mut io, _guard) = GuardedIo::of_responses(Box::new(ours));
    let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    endpoint.write_all(&[head.as_slice(), b"raw"].concat()).await.unwrap();
    let mut all = vec![0; head.len() + 3];
    io.read_exact(&mut all).await.unwrap();
    assert!(all.ends_with(b"raw"));
}

#[tokio::test]
async fn a_faulty_response_is_an_error_with_its_cause() {
    let (mut endpoint, ours) = tokio::io::duplex(1024);
    let (mut io, _guard) = GuardedIo::of_responses(Box::new(ours));
    endpoint.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
    let error = io.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(FramingFault::behind(&error).unwrap().cause, "several Content-Length fields");
}

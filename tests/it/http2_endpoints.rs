//! What HTTP/2 endpoints may do with a stream, and what their clients get then.

use crate::support::certificates::TestCa;
use crate::support::{Bench, Running, eventually, text};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Respond = SendResponse<Bytes>;

/// What an endpoint does with its first connection.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Serve,
    /// A GOAWAY, in answer to the first request, that leaves this request out.
    GoAway,
}

/// An HTTP/2 endpoint for api.tracewire.test. `handle` gets each request with its number, counted over all connections.
async fn endpoint<F>(ca: &TestCa, mut first: First, handle: F) -> SocketAddr
where
    F: Fn(usize, Request<RecvStream>, Respond) + Send + Sync + 'static,
{
    let (certificate, key) = ca.leaf("api.tracewire.test", 30);
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate], PrivateKeyDer::from_pem_file(key).unwrap()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (handle, count) = (Arc::new(handle), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, handle, count) = (acceptor.clone(), Arc::clone(&handle), Arc::clone(&count));
            let first = std::mem::replace(&mut first, First::Serve);
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                if first == First::GoAway {
                    return go_away(stream).await;
                }
                let mut connection = h2::server::Builder::new();
                connection.max_header_list_size(1 << 20);
                let mut connection = connection.handshake::<_, Bytes>(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    handle(count.fetch_add(1, Ordering::SeqCst), request, respond);
                }
            });
        }
    });
    address
}

/// Frames by hand: no server of a library leaves out a stream that it has accepted.
async fn go_away(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    stream.write_all(&SETTINGS).await.unwrap();
    stream.read_exact(&mut [0; 24]).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            stream.write_all(&GOAWAY).await.unwrap();
            drop(stream.read_to_end(&mut payload).await);
            return;
        }
    }
}

struct Client {
    bench: Bench,
    serve: Running,
}

impl Client {
    async fn of<F>(first: First, handle: F) -> Self
    where
        F: Fn(usize, Request<RecvStream>, Respond) + Send + Sync + 'static,
    {
        let bench = Bench::new();
        let ca = TestCa::new(bench.home());
        let rule = format!("api.tracewire.test:443:{}", endpoint(&ca, first, handle).await);
        let serve = bench.serve(&["--upstream-ca", ca.path().to_str().unwrap(), "--connect-to", &rule]);
        Self { bench, serve }
    }

    fn curl(&self, rollout: &str, arguments: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--http2", "--max-time", "60", "-w", " %{http_code}", "--cacert"]).arg(self.serve.path("ca"));
        curl.args(["--proxy", &format!("http://{rollout}.at-1:@{}", self.serve.address("proxy"))]);
        curl.args(arguments).arg("https://api.tracewire.test/");
        curl
    }

    async fn output(&self, rollout: &str, arguments: &[&str]) -> Output {
        let mut curl = self.curl(rollout, arguments);
        tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap()
    }
}

fn answer(mut respond: Respond, body: &'static [u8]) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(body.into(), true).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_did_not_process_is_sent_again() {
    for (name, first, refused) in [("refused", First::Serve, 0..2), ("goaway", First::GoAway, 0..0)] {
        let client = Client::of(first, move |count, request, mut respond| {
            if refused.contains(&count) {
                return respond.send_reset(Reason::REFUSED_STREAM);
            }
            tokio::spawn(async move {
                let (mut body, mut got) = (request.into_body(), Vec::new());
                while let Some(Ok(data)) = body.data().await {
                    got.extend_from_slice(&data);
                    let _ = body.flow_control().release_capacity(data.len());
                }
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data(got.into(), true).unwrap();
            });
        })
        .await;
        let rollout = format!("ro-{name}");
        let output = client.output(&rollout, &["--data-binary", "hello"]).await;
        assert_eq!(output.stdout, b"hello 200", "{name}: {}", text(&output));
        let span = &client.bench.exchanges(&rollout, 1)[0];
        assert_eq!(span["attributes"]["http.request.body.size"], 5, "{span:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_reset_without_an_error_is_broken() {
    let client = Client::of(First::Serve, |count, _, mut respond| {
        let mut head = Response::new(());
        if count == 1 {
            head.headers_mut().insert("content-length", 10.into());
        }
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data("half".into(), false).unwrap();
        tokio::spawn(async move {
            // The reset would take the data along.
            std::future::poll_fn(|cx| {
                stream.reserve_capacity(1);
                stream.poll_capacity(cx)
            })
            .await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            stream.send_reset(Reason::NO_ERROR);
        });
    })
    .await;
    for rollout in ["ro-no-length", "ro-length"] {
        let output = client.output(rollout, &[]).await;
        assert!(!output.status.success() && output.stdout.starts_with(b"half"), "{rollout}: {}", text(&output));
        let span = &client.bench.exchanges(rollout, 1)[0];
        assert_eq!(span["attributes"]["error.type"], "http_response_incomplete", "{span:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_the_same_limit_in_both_versions() {
    let client = Client::of(First::Serve, |_, request, mut respond| {
        let mut head = Response::new(());
        for (name, value) in request.headers() {
            if name.as_str().starts_with("x-") {
                head.headers_mut().insert(name.clone(), value.clone());
            }
        }
        respond.send_response(head, true).unwrap();
    })
    .await;
    let headers = client.bench.home().join("headers");
    let fields: String = (0..300).map(|at| format!("header = \"x-{at}: {}\"\n", "v".repeat(190))).collect();
    std::fs::write(&headers, fields).unwrap();
    let output = client.output("ro-fields", &["-K", headers.to_str().unwrap(), "-D", "-"]).await;
    let got = String::from_utf8_lossy(&output.stdout).matches("\nx-").count();
    assert_eq!(got, 300, "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stopped_do_not_hold_up_other_calls() {
    const STALLED: usize = 9;
    let client = Client::of(First::Serve, |count, _, mut respond| {
        if count >= STALLED {
            return answer(respond, b"small");
        }
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        tokio::spawn(async move {
            // As much as flow control lets pass.
            loop {
                stream.reserve_capacity(64 * 1024);
                let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                let Some(Ok(length)) = capacity else { return };
                if stream.send_data(vec![b'x'; length].into(), false).is_err() {
                    return;
                }
            }
        });
    })
    .await;
    let mut stalled: Vec<_> =
        (0..STALLED).map(|_| client.curl("ro-slow", &[]).stdout(Stdio::piped()).spawn().unwrap()).collect();
    for curl in &mut stalled {
        let mut some = vec![0; 100_000];
        curl.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    }
    let output = client.output("ro-slow", &[]).await;
    assert_eq!(output.stdout, b"small 200", "{}", text(&output));
    for mut curl in stalled {
        curl.kill().unwrap();
        curl.wait().unwrap();
    }
    eventually(|| (client.bench.exchanges("ro-slow", STALLED + 1).len() == STALLED + 1).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_error_reaches_a_client_that_then_ends_its_upload_short() {
    let client = Client::of(First::Serve, |_, request, mut respond| {
        let head = Response::builder().status(429).body(()).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        tokio::spawn(async move {
            // Behind the head, as a server sends it that writes both one after the other.
            tokio::task::yield_now().await;
            let _ = stream.send_data("slow down".into(), true);
            // The rest of the upload is taken.
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
        });
    })
    .await;
    let upload = client.bench.home().join("upload");
    std::fs::write(&upload, vec![b'x'; 3_000_000]).unwrap();
    let data = format!("@{}", upload.display());
    for _ in 0..8 {
        let output = client.output("ro-early", &["--data-binary", &data]).await;
        assert_eq!(output.stdout, b"slow down 429", "{}", text(&output));
    }
}

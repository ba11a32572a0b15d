//! One trace of an agent, a service and a worker behind a queue: `traceparent` and `baggage` carry the trace, the rollout and the
//! tenant. Run it with `cargo run --example distributed_trace`.
//!
//! The three parts share nothing but a TCP connection, a queue, and the store, as three processes would.

#![allow(clippy::print_stdout, unreachable_pub, reason = "an example prints, and a test calls its main function")]

use std::io;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracewire::store::{Retention, memory::MemoryStore};
use tracewire::tracer::{self, Baggage, Context, StoreTracer, Trace, TraceOptions, Tracer, TracerError, create_span};

type AnyError = Box<dyn std::error::Error + Send + Sync>;
/// A message in the queue: header fields, and a body.
type Message = (Vec<(String, String)>, String);

/// The agent: calls the service.
async fn agent(tracer: StoreTracer, service: std::net::SocketAddr) -> Result<(), AnyError> {
    let options = TraceOptions::new("agent").rollout("ro-1").attempt("at-1");
    let options = options.baggage(Baggage::default().with("tenant", "blue")?);
    tracer
        .trace_context(options, async {
            let call = tracer::operation("POST /index")?;
            let mut request = String::from("POST /index HTTP/1.1\r\n");
            for (name, value) in call.context().headers() {
                request += &format!("{name}: {value}\r\n");
            }
            call.run(async {
                let mut stream = TcpStream::connect(service).await?;
                stream.write_all((request + "\r\n").as_bytes()).await?;
                let status = BufReader::new(stream).lines().next_line().await?;
                status.filter(|status| status.contains("202")).ok_or_else(|| io::Error::other("refused"))?;
                Ok::<_, AnyError>(())
            })
            .await
        })
        .await
}

/// The service: continues the trace of the request, and queues the work with it.
async fn service(tracer: StoreTracer, listener: TcpListener, queue: mpsc::Sender<Message>) -> Result<(), AnyError> {
    let (mut stream, _) = listener.accept().await?;
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    let mut headers = Vec::new();
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        headers.extend(line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    tracer
        .trace_context(TraceOptions::new("service").remote_parent(headers), async {
            let fields = Context::current()?.headers().map(|(name, value)| (name.to_owned(), value));
            queue.send((fields.to_vec(), "document 7".to_owned())).await?;
            writer.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await?;
            Ok(())
        })
        .await
}

/// The worker: continues the trace of each message.
async fn worker(tracer: StoreTracer, mut queue: mpsc::Receiver<Message>) -> Result<(), AnyError> {
    while let Some((fields, document)) = queue.recv().await {
        let options = TraceOptions::new("worker").remote_parent(fields);
        tracer
            .trace_context(options, async {
                create_span(format!("index {document}"))?;
                Ok::<_, TracerError>(())
            })
            .await?;
    }
    Ok(())
}

/// Runs the example.
#[tokio::main(flavor = "multi_thread")]
pub async fn main() -> Result<(), AnyError> {
    let store = Arc::new(MemoryStore::new(Retention::default()));
    let start = || {
        let tracer = StoreTracer::new(Arc::clone(&store))?;
        tracer.init_worker(0)?;
        Ok::<_, TracerError>(tracer)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (sender, receiver) = mpsc::channel(8);
    let service = tokio::spawn(service(start()?, listener, sender));
    let worker = tokio::spawn(worker(start()?, receiver));
    agent(start()?, address).await?;
    service.await??;
    worker.await??;

    // The service and the worker never heard of the rollout but in the baggage.
    let trace = Trace::read(&*store, "ro-1", "at-1").await?;
    let tree: Vec<_> = trace.tree().into_iter().map(|(depth, span)| (depth, span.name.as_str())).collect();
    assert_eq!(tree, [(0, "agent"), (1, "POST /index"), (2, "service"), (3, "worker"), (4, "index document 7")]);
    let tenant = trace.find("index document 7").and_then(|span| span.attributes.get("baggage.tenant"));
    assert_eq!(tenant.and_then(|value| value.as_str()), Some("blue"));
    println!("{}", trace.timeline());
    Ok(())
}

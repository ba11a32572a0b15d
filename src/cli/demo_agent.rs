//! The demo's agent, a process of its own: it calls an LLM endpoint and a tool.
//!
//! It contains nothing specific to Tracewire. Like other clients it reads HTTPS_PROXY and SSL_CERT_FILE.

use super::show::out;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value as JsonValue, json};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Arguments of the demo's agent.
#[derive(Args)]
pub(super) struct DemoAgentArgs {
    /// The LLM endpoint, `https://HOST:PORT`
    #[arg(long)]
    endpoint: String,
}

pub(super) async fn run(args: DemoAgentArgs) -> Result<ExitCode> {
    let mut agent = Agent::connect(&args.endpoint).await?;
    let question = json!({ "role": "user", "content": "What is the weather in Paris, and what should I wear?" });
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    let tools = json!([{ "type": "function", "function": { "name": "get_weather", "parameters": parameters } }]);
    out("agent: asking the model a question, with a weather tool\n")?;
    let request = json!({ "model": "mock", "messages": [question], "tools": tools });
    let response = agent.json(Method::POST, "/v1/chat/completions", &request).await?;
    let call = &response["choices"][0]["message"]["tool_calls"][0];
    let arguments: JsonValue = serde_json::from_str(call["function"]["arguments"].as_str().unwrap_or("{}"))?;
    let city = arguments["city"].as_str().context("the model did not call the tool")?;
    out(format!("agent: the model wants {} for {city}\n", call["function"]["name"].as_str().unwrap_or("?")))?;
    let weather = agent.json(Method::GET, &format!("/weather?city={city}"), &JsonValue::Null).await?;
    out(format!("agent: the tool says {} °C and {}\n", weather["celsius"], weather["sky"].as_str().unwrap_or("?")))?;
    let result = json!({ "role": "tool", "tool_call_id": call["id"], "content": weather.to_string() });
    let request =
        json!({ "model": "mock", "messages": [question, response["choices"][0]["message"], result], "tools": tools });
    let response = agent.json(Method::POST, "/v1/chat/completions", &request).await?;
    out(format!("agent: {}\n", response["choices"][0]["message"]["content"].as_str().unwrap_or("?")))?;
    let summary = json!({ "model": "mock", "stream": true, "messages": [{ "role": "user", "content": "Sum it up." }] });
    let chunks = agent.count_chunks("/v1/chat/completions", &summary).await?;
    out(format!("agent: received a summary in {chunks} chunks\n"))?;
    Ok(ExitCode::SUCCESS)
}

struct Agent {
    host: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Agent {
    async fn connect(endpoint: &str) -> Result<Self> {
        let host = endpoint.strip_prefix("https://").context("the endpoint must be https://HOST:PORT")?.to_owned();
        let proxy = std::env::var("HTTPS_PROXY").context("HTTPS_PROXY is not set")?;
        let proxy = proxy.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(proxy).await.with_context(|| format!("cannot connect to {proxy}"))?;
        stream.write_all(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.context("the proxy closed the connection")?);
        }
        if !head.starts_with(b"HTTP/1.1 200") {
            bail!("the proxy rejected CONNECT: {}", String::from_utf8_lossy(&head));
        }
        let mut roots = RootCertStore::empty();
        let file = std::env::var("SSL_CERT_FILE").context("SSL_CERT_FILE is not set")?;
        roots.add_parsable_certificates(CertificateDer::pem_file_iter(&file)?.flatten());
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_owned();
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name)?, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { host, sender })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: &JsonValue,
    ) -> Result<hyper::Response<hyper::body::Incoming>> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, "Bearer sk-demo-not-a-real-key")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(text)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await.with_context(|| format!("no response from {path}"))?;
        if !response.status().is_success() {
            bail!("{path} responded with {}", response.status());
        }
        Ok(response)
    }

    async fn json(&mut self, method: Method, path: &str, body: &JsonValue) -> Result<JsonValue> {
        let response = self.send(method, path, body).await?;
        Ok(serde_json::from_slice(&response.collect().await?.to_bytes())?)
    }

    /// The number of chunks of a streamed response.
    async fn count_chunks(&mut self, path: &str, body: &JsonValue) -> Result<usize> {
        let mut response = self.send(Method::POST, path, body).await?;
        let mut chunks = 0;
        while let Some(frame) = response.frame().await {
            chunks += usize::from(frame?.is_data());
        }
        Ok(chunks)
    }
}

//! Flows as mitmproxy stores them: each HTTP flow becomes an entry as a HAR has them, and is read as one.
//!
//! Flows of TCP, UDP and DNS are left out.

use super::har::add_entry;
use super::har_entry::Place;
use super::imported::Imported;
use super::options::ImportOptions;
use super::tnetstring::Tagged;
use crate::pipeline::Relations;
use crate::trace::Timestamp;
use crate::wire::encoding::decode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value as JsonValue, json};

/// True if a file begins like one of mitmproxy's: with a map, or with one that is cut.
pub(super) fn is_start(bytes: &[u8]) -> bool {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let after = bytes.get(digits..).unwrap_or_default();
    digits > 0 && after.strip_prefix(b":").is_some_and(|map| map.first().is_some_and(u8::is_ascii_digit))
}

/// Reads all flows of a file.
pub(super) fn read(file: &[u8], options: &ImportOptions) -> Imported {
    let mut imported = Imported::default();
    let mut relations = Relations::default();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file);
    let rollout = format!("mitmproxy-{}", const_hex::encode(&digest.as_ref()[..6]));
    let (mut rest, mut at) = (file, 0);
    while !rest.is_empty() {
        let Some((flow, after)) = Tagged::first_of(rest) else {
            imported.leave_out("the rest of the file: it is cut or damaged");
            break;
        };
        rest = after;
        match flow.get("type").text().as_deref() {
            Some("http") | None if !matches!(flow.get("request"), Tagged::Null) => {
                let place = Place { rollout: &rollout, at, position: at };
                add_entry(&mut imported, &entry(&flow), place, &mut relations, options);
            }
            Some(kind) => imported.leave_out(format!("a flow of the type {kind}")),
            None => imported.leave_out("a flow without a request"),
        }
        at += 1;
    }
    imported
}

/// The flow as an entry of a HAR.
fn entry(flow: &Tagged<'_>) -> JsonValue {
    let (request, response) = (flow.get("request"), flow.get("response"));
    let start = request.get("timestamp_start").number().unwrap_or_default();
    let since_start = |time: &Tagged<'_>| time.number().map(|time| (time - start).max(0.0) * 1000.0);
    let head = since_start(response.get("timestamp_start"));
    let ends = [response.get("timestamp_end"), flow.get("error").get("timestamp"), request.get("timestamp_end")];
    let end = ends.into_iter().find_map(since_start).unwrap_or_default();
    let wait = head.unwrap_or(end).min(end);
    let mut entry = json!({
        "_startedUnixNanos": Timestamp::from_unix_secs(start).unix_nanos,
        "time": end,
        "timings": { "send": 0, "wait": wait, "receive": end - wait },
        "request": request_json(request),
        "response": response_json(response, flow.get("error")),
    });
    if let Tagged::Map(_) = flow.get("websocket") {
        entry["_webSocketMessages"] = flow.get("websocket").get("messages").list().iter().map(message).collect();
    }
    entry
}

fn request_json(request: &Tagged<'_>) -> JsonValue {
    let text = |name: &str| request.get(name).text().unwrap_or_default();
    let (scheme, host) = (text("scheme"), text("host"));
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let port = request.get("port").number().unwrap_or_default();
    let path = text("path");
    let body = body(request);
    json!({
        "method": text("method"),
        "url": format!("{scheme}://{host}:{port}{path}"),
        "httpVersion": text("http_version"),
        "headers": headers(request),
        "bodySize": request.get("content").bytes().map_or(0, <[u8]>::len),
        "postData": { "text": STANDARD.encode(body), "encoding": "base64" },
    })
}

fn response_json(response: &Tagged<'_>, error: &Tagged<'_>) -> JsonValue {
    if *response == Tagged::Null {
        return json!({ "status": 0, "_error": error.get("msg").text() });
    }
    json!({
        "status": response.get("status_code").number().unwrap_or_default() as u64,
        "httpVersion": response.get("http_version").text(),
        "headers": headers(response),
        "bodySize": response.get("content").bytes().map_or(0, <[u8]>::len),
        "content": { "text": STANDARD.encode(body(response)), "encoding": "base64" },
    })
}

/// The header fields of a message.
fn fields<'a>(message: &'a Tagged<'a>) -> impl Iterator<Item = (String, String)> {
    let pair = |field: &Tagged<'_>| Some((field.list().first()?.text()?, field.list().get(1)?.text()?));
    message.get("headers").list().iter().filter_map(pair)
}

fn headers(message: &Tagged<'_>) -> JsonValue {
    let fields = fields(message).filter(|(name, _)| !name.eq_ignore_ascii_case("content-encoding"));
    fields.map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

/// The body of a message, decoded.
fn body(message: &Tagged<'_>) -> Vec<u8> {
    let content = message.get("content").bytes().unwrap_or_default().to_vec();
    let mut headers = HeaderMap::new();
    for (name, value) in fields(message) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    decode(&headers, content, MAX_BODY_BYTES).bytes
}

/// A message of a WebSocket: opcode, whether the client sent it, content, time.
fn message(message: &Tagged<'_>) -> JsonValue {
    let list = message.list();
    let field = |at: usize| list.get(at).unwrap_or(&Tagged::Null);
    let opcode = field(0).number().unwrap_or(1.0) as u64;
    let content = field(2).bytes().unwrap_or_default();
    let data = if opcode == 2 { STANDARD.encode(content) } else { String::from_utf8_lossy(content).into_owned() };
    let kind = if *field(1) == Tagged::Bool(true) { "send" } else { "receive" };
    json!({ "type": kind, "opcode": opcode, "data": data, "time": field(3).number() })
}

/// A body is cut there after decoding.
const MAX_BODY_BYTES: usize = 64 << 20;

//! A response that is read in pieces is the same call as one that is read at once.

use super::begun_response::BegunResponse;
use super::read::{HttpExchangeView, ResponseSource, read, read_from};
use super::read_call::ReadCall;
use crate::trace::SamplerArrays;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;

struct Golden {
    name: String,
    target: String,
    request_headers: HeaderMap,
    request: Vec<u8>,
    response_headers: HeaderMap,
    status: u16,
    response: Vec<u8>,
}

impl Golden {
    fn view<'a>(&'a self, response: &'a [u8]) -> HttpExchangeView<'a> {
        HttpExchangeView {
            host: "example.com",
            port: 443,
            target: &self.target,
            request_headers: &self.request_headers,
            request_body: &self.request,
            status: Some(self.status),
            response_headers: &self.response_headers,
            response_body: response,
        }
    }

    /// Reads the response in pieces; the last one with the request.
    fn read_in_pieces(&self, held_bytes: usize, cuts: &[usize]) -> Option<ReadCall> {
        let mut begun = self.begun()?.holding(held_bytes);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (self.response.len() + 1)).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for cut in cuts.into_iter().chain([self.response.len()]) {
            begun.push(&self.response[from..cut]);
            from = cut;
        }
        read_from(&self.view(&[]), ResponseSource::Begun(Box::new(begun)), SamplerArrays::default())
    }

    fn begun(&self) -> Option<BegunResponse> {
        BegunResponse::new(&self.target, &self.response_headers, SamplerArrays::default())
    }
}

fn parts(text: &[u8]) -> Option<(String, HeaderMap, Vec<u8>)> {
    let end = memchr::memmem::find(text, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&text[..end]).into_owned();
    let mut lines = head.lines();
    let first = lines.next()?.to_owned();
    let field = |line: &str| -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
    };
    let headers: HeaderMap = lines.filter_map(field).collect();
    let body = &text[end + 4..];
    let body = if headers.contains_key("transfer-encoding") { dechunked(body)? } else { body.to_vec() };
    (!headers.contains_key("content-encoding")).then_some((first, headers, body))
}

fn dechunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = memchr::memmem::find(body, b"\r\n")?;
        let size = std::str::from_utf8(&body[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        let chunk = body.get(line + 2..line + 2 + size)?;
        whole.extend_from_slice(chunk);
        body = body.get(line + 4 + size..)?;
    }
}

fn golden() -> Vec<Golden> {
    let folders = |path: &Path| {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let cases = folders(&root).into_iter().flat_map(|api| folders(&api));
    let read = |case: std::path::PathBuf| -> Option<Golden> {
        let (first, request_headers, request) = parts(&std::fs::read(case.join("request.http")).ok()?)?;
        let (status, response_headers, response) = parts(&std::fs::read(case.join("response.http")).ok()?)?;
        let target = first.split(' ').nth(1)?.to_owned();
        let target = target.split_once("://").map_or(target.clone(), |(_, rest)| {
            rest.find('/').map_or_else(|| "/".to_owned(), |at| rest[at..].to_owned())
        });
        let status = status.split(' ').nth(1)?.parse().ok()?;
        let name = case.strip_prefix(&root).ok()?.display().to_string();
        Some(Golden { name, target, request_headers, request, response_headers, status, response })
    };
    cases.filter_map(read).collect()
}

/// What must be the same, however a response was read.
fn summary(read: Option<ReadCall>) -> String {
    let Some(ReadCall { mut call, event_ends, token_counts }) = read else { return "no call".to_owned() };
    call.unread.sort_by_key(|part| part.as_str());
    format!("{call:#?} {event_ends:?} {token_counts:?}")
}

#[test]
fn golden_responses_are_the_same_in_pieces() {
    let golden = golden();
    let (mut compared, mut apis) = (0, BTreeSet::new());
    for case in &golden {
        if case.begun().is_none() {
            continue;
        }
        compared += 1;
        apis.extend(case.name.split('/').next());
        let whole = summary(read(&case.view(&case.response)));
        let each_byte: Vec<usize> = (0..case.response.len()).collect();
        for (held_bytes, cuts) in [(16, &each_byte[..]), (16, &[]), (40, &[40, 41, 300]), (1 << 20, &[7])] {
            assert_eq!(summary(case.read_in_pieces(held_bytes, cuts)), whole, "{}: {held_bytes}", case.name);
        }
    }
    assert!(compared > 60, "{compared} of {}", golden.len());
    for api in ["openai.chat", "openai.responses", "anthropic.messages", "gemini", "ollama", "sglang.generate"] {
        assert!(apis.contains(api), "{api} is not among {apis:?}");
    }
}

proptest! {
    #[test]
    fn any_division_gives_the_same_call(at in any::<prop::sample::Index>(), cuts in prop::collection::vec(any::<usize>(), 0..6), held_bytes in 16_usize..400) {
        let golden = golden();
        let case = at.get(&golden);
        if case.begun().is_some() {
            let whole = summary(read(&case.view(&case.response)));
            prop_assert_eq!(summary(case.read_in_pieces(held_bytes, &cuts)), whole, "{}", case.name);
        }
    }
}

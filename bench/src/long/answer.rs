//! Requests and responses of long calls in vLLM's shape, in pieces that are made while they are written.

use super::npy;
use super::plan::{Call, Kind, Order};
use bytes::Bytes;
use std::fmt::Write as _;
use std::iter;
use std::ops::Range;

/// Pieces of a text, each of some kilobytes.
pub type Pieces = Box<dyn Iterator<Item = Bytes> + Send + Sync>;

/// The body of a request. It asks for no ids.
pub fn request(order: Order) -> Pieces {
    let call = order.call;
    let stream = call.plan.kind == Kind::Sse;
    let head = format!("{{\"model\":\"bench\",\"user\":\"{}\",\"stream\":{stream},\"messages\":[", order.wish());
    let messages = call.messages().into_iter().enumerate().flat_map(move |(at, (role, range))| {
        let comma = if at > 0 { "," } else { "" };
        one(format!("{comma}{{\"role\":\"{role}\",\"content\":\"")).chain(words(call, range)).chain(one("\"}"))
    });
    Box::new(one(head).chain(messages).chain(one("]}")))
}

/// The length of a text.
pub fn length(pieces: Pieces) -> u64 {
    pieces.map(|piece| piece.len() as u64).sum()
}

/// A whole response.
pub fn response(call: Call) -> Pieces {
    match call.plan.kind {
        Kind::Json | Kind::Experts => whole(call, ids(call, call.prompt())),
        Kind::Sse => Box::new(first_event(call).chain(later_events(call))),
    }
}

/// The length of a response that is one JSON text, for which the ids of the prompt are not written.
pub fn whole_length(call: Call) -> u64 {
    let digits: usize = call.prompt().map(|at| digits(call, at)).sum();
    let commas = call.prompt().end - 1;
    length(whole(call, iter::empty())) + digits as u64 + commas
}

fn whole(call: Call, prompt_ids: impl Iterator<Item = Bytes> + Send + Sync + 'static) -> Pieces {
    let sampled = call.sampled();
    let (prompt_tokens, completion_tokens) = (call.prompt().end, call.plan.sampled_ids);
    let head = format!(
        "{{\"id\":\"{}\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"bench\",\"choices\":[{{\"index\":0,\
         \"message\":{{\"role\":\"assistant\",\"content\":\"",
        call.response_id()
    );
    let usage = format!(
        "}}],\"service_tier\":null,\"usage\":{{\"prompt_tokens\":{prompt_tokens},\"completion_tokens\":{completion_tokens},\
         \"total_tokens\":{}}},\"prompt_logprobs\":null,\"prompt_token_ids\":[",
        prompt_tokens + completion_tokens
    );
    let choice = one(head)
        .chain(words(call, sampled.clone()))
        .chain(one("\",\"refusal\":null,\"tool_calls\":[]},\"logprobs\":{\"content\":["))
        .chain(list(sampled.clone(), 128, move |text, at| logprob(text, call, at)))
        .chain(one("]},\"finish_reason\":\"stop\",\"stop_reason\":null,\"token_ids\":["))
        .chain(ids(call, sampled))
        .chain(one("]"));
    let experts: Pieces = match call.plan.kind {
        Kind::Experts => Box::new(one(",\"routed_experts\":\"").chain(npy::base64(call)).chain(one("\""))),
        Kind::Json | Kind::Sse => Box::new(iter::empty()),
    };
    Box::new(choice.chain(experts).chain(one(usage)).chain(prompt_ids).chain(one("],\"kv_transfer_params\":null}")))
}

/// The first event of a stream, with the ids of the prompt.
pub fn first_event(call: Call) -> Pieces {
    let head = format!(
        "{}\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\
         \"finish_reason\":null}}],\"prompt_token_ids\":[",
        event_head(call)
    );
    Box::new(one(head).chain(ids(call, call.prompt())).chain(one("]}\n\n")))
}

/// The other events, one in each piece. The last piece ends the stream.
pub fn later_events(call: Call) -> Pieces {
    let (start, end) = (call.sampled().start, call.sampled().end);
    let events = (start..end).step_by(DELTA_IDS).map(move |from| {
        let to = end.min(from + DELTA_IDS as u64);
        let (mut words, mut logprobs, mut ids) = (String::new(), String::new(), String::new());
        for at in from..to {
            word(&mut words, call, at);
            element(&mut logprobs, at > from, |text| logprob(text, call, at));
            element(&mut ids, at > from, |text| id(text, call, at));
        }
        let finish_reason = if to == end { "\"stop\"" } else { "null" };
        Bytes::from(format!(
            "{}\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{words}\"}},\"logprobs\":{{\"content\":[{logprobs}]}},\
             \"finish_reason\":{finish_reason},\"token_ids\":[{ids}]}}]}}\n\n",
            event_head(call)
        ))
    });
    Box::new(events.chain(one("data: [DONE]\n\n")))
}

fn event_head(call: Call) -> String {
    let id = call.response_id();
    format!("data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"bench\",")
}

fn one(text: impl Into<Bytes>) -> impl Iterator<Item = Bytes> + Send + Sync {
    iter::once(text.into())
}

fn words(call: Call, range: Range<u64>) -> impl Iterator<Item = Bytes> + Send + Sync {
    groups(range, 4096).map(move |group| {
        let mut text = String::with_capacity(4 * 4096);
        group.for_each(|at| word(&mut text, call, at));
        Bytes::from(text)
    })
}

fn ids(call: Call, range: Range<u64>) -> impl Iterator<Item = Bytes> + Send + Sync {
    list(range, 2048, move |text, at| id(text, call, at))
}

/// The elements of a list with commas between them, `count` in each piece.
fn list(
    range: Range<u64>,
    count: usize,
    write: impl Fn(&mut String, u64) + Send + Sync,
) -> impl Iterator<Item = Bytes> + Send + Sync {
    let start = range.start;
    groups(range, count).map(move |group| {
        let mut text = String::new();
        group.for_each(|at| element(&mut text, at > start, |text| write(text, at)));
        Bytes::from(text)
    })
}

fn groups(range: Range<u64>, count: usize) -> impl Iterator<Item = Range<u64>> + Send + Sync {
    let end = range.end;
    range.step_by(count).map(move |from| from..end.min(from + count as u64))
}

fn element(text: &mut String, is_later: bool, write: impl Fn(&mut String)) {
    if is_later {
        text.push(',');
    }
    write(text);
}

fn id(text: &mut String, call: Call, at: u64) {
    // Ids are most of what an endpoint writes: three digits at a time.
    let id = call.id(at) as usize;
    let ([a, b, c], [d, e, f]) = (THREE_DIGITS[id / 1000 % 1000], THREE_DIGITS[id % 1000]);
    text.push_str(ascii(&[a, b, c, d, e, f][6 - digits(call, at)..]));
}

/// How many digits an id has.
fn digits(call: Call, at: u64) -> usize {
    1 + call.id(at).checked_ilog10().unwrap_or(0) as usize
}

fn word(text: &mut String, call: Call, at: u64) {
    text.push_str(ascii(&call.word(at)));
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn logprob(text: &mut String, call: Call, at: u64) {
    let (word, value) = (call.word(at), f64::from(call.logprob(at)));
    text.push_str("{\"token\":\"");
    text.push_str(ascii(&word));
    let [first, second, third, fourth] = word;
    let _ = write!(text, "\",\"logprob\":{value},\"bytes\":[{first},{second},{third},{fourth}],\"top_logprobs\":[]}}");
}

/// The numbers below a thousand.
static THREE_DIGITS: [[u8; 3]; 1000] = {
    let (mut table, mut number) = ([[0; 3]; 1000], 0);
    while number < 1000 {
        table[number] = [b'0' + (number / 100) as u8, b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    table
};

/// Sampled ids in each event of a stream.
const DELTA_IDS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::long::plan::{Ids, Plan};
    use serde_json::Value as JsonValue;

    fn call(kind: Kind) -> Call {
        let (prompt_ids, sampled_ids) = (5000, 203);
        Plan { kind, rollouts: 4, turns: 2, prompt_ids, sampled_ids, delay_ms: 0, interval_ms: 0 }.call(3, 1)
    }

    fn text(pieces: Pieces) -> String {
        String::from_utf8(pieces.flatten().collect()).unwrap()
    }

    fn numbers(list: &JsonValue) -> Vec<u64> {
        list.as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).collect()
    }

    fn expected(call: Call, range: Range<u64>) -> Vec<u64> {
        range.map(|at| u64::from(call.id(at))).collect()
    }

    fn check_logprobs(call: Call, from: u64, logprobs: &JsonValue) {
        for (at, entry) in (from..).zip(logprobs["content"].as_array().unwrap()) {
            assert_eq!(entry["logprob"].as_f64().unwrap() as f32, call.logprob(at));
            assert_eq!(entry["token"].as_str().unwrap().as_bytes(), call.word(at));
        }
    }

    #[test]
    fn a_request_has_the_words_of_its_prompt_and_asks_for_no_ids() {
        let call = call(Kind::Json);
        let body = text(request(Order { call, ids: Ids::OnRequest }));
        assert_eq!(length(request(Order { call, ids: Ids::OnRequest })), body.len() as u64);
        let body: JsonValue = serde_json::from_str(&body).unwrap();
        let messages = body["messages"].as_array().unwrap();
        let words: usize = messages.iter().map(|message| message["content"].as_str().unwrap().len()).sum();
        assert_eq!((messages.len(), words), (3, 4 * 5000));
        let mut keys: Vec<_> = body.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["messages", "model", "stream", "user"]);
    }

    #[test]
    fn a_whole_response_has_all_ids_and_logprobs() {
        for kind in [Kind::Json, Kind::Experts] {
            let call = call(kind);
            let body = text(response(call));
            assert_eq!(whole_length(call), body.len() as u64);
            let body: JsonValue = serde_json::from_str(&body).unwrap();
            let choice = &body["choices"][0];
            assert_eq!(numbers(&body["prompt_token_ids"]), expected(call, 0..5000));
            assert_eq!(numbers(&choice["token_ids"]), expected(call, 5000..5203));
            assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 203);
            check_logprobs(call, 5000, &choice["logprobs"]);
            assert_eq!(choice["message"]["content"].as_str().unwrap().len(), 4 * 203);
            assert_eq!(choice["routed_experts"].is_string(), kind == Kind::Experts);
            assert_eq!(body["usage"]["total_tokens"], 5203);
        }
    }

    #[test]
    fn a_stream_has_the_same() {
        let call = call(Kind::Sse);
        let body = text(response(call));
        let events: Vec<_> = body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
        assert_eq!((events.len(), events.last()), (1 + 26 + 1, Some(&"[DONE]")));
        let events: Vec<JsonValue> = events[..27].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        assert_eq!(numbers(&events[0]["prompt_token_ids"]), expected(call, 0..5000));
        let mut sampled = Vec::new();
        for event in &events[1..] {
            check_logprobs(call, 5000 + sampled.len() as u64, &event["choices"][0]["logprobs"]);
            sampled.extend(numbers(&event["choices"][0]["token_ids"]));
        }
        assert_eq!(sampled, expected(call, 5000..5203));
        assert_eq!(events[26]["choices"][0]["finish_reason"], "stop");
    }
}

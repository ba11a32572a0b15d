//! What came of a call: the response that its agent got, and the record that its span has.

use super::answer::{Pieces, response};
use super::npy;
use super::plan::{Call, Kind};
use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What an agent must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Every byte that the endpoint sent.
    Same,
    /// The response without ids and log-probabilities.
    WithoutIds,
}

/// The check of one response, which is given to it in pieces.
pub enum ResponseCheck {
    /// Compared while it arrives.
    Same { left: Pieces, piece: Bytes },
    /// Short without its ids, and read at its end.
    WithoutIds { call: Call, received: Vec<u8> },
}

impl ResponseCheck {
    /// A check of what an agent gets for `call`.
    pub fn new(call: Call, expected: Expected) -> Self {
        match expected {
            Expected::Same => Self::Same { left: response(call), piece: Bytes::new() },
            Expected::WithoutIds => Self::WithoutIds { call, received: Vec::new() },
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut data: &[u8]) -> Result<()> {
        match self {
            Self::WithoutIds { call, received } => {
                received.extend_from_slice(data);
                ensure!(received.len() as u64 <= max_bytes_without_ids(*call), "the response is too long without ids");
            }
            Self::Same { left, piece } => {
                while !data.is_empty() {
                    if piece.is_empty() {
                        *piece = left.next().context("the response is too long")?;
                    }
                    let length = piece.len().min(data.len());
                    ensure!(piece[..length] == data[..length], "the response differs");
                    data = &data[length..];
                    piece.advance(length);
                }
            }
        }
        Ok(())
    }

    /// Says what is wrong with the response, if anything is.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Same { mut left, piece } => {
                ensure!(piece.is_empty() && left.all(|piece| piece.is_empty()), "the response is too short");
                Ok(())
            }
            Self::WithoutIds { call, received } => check_without_ids(call, &received),
        }
    }
}

/// What a response without ids takes at most.
fn max_bytes_without_ids(call: Call) -> u64 {
    let experts = if call.plan.kind == Kind::Experts { npy::base64_length(call) } else { 0 };
    64 * 1024 + 64 * call.plan.sampled_ids + experts
}

/// A response, or an event of one. What an agent without ids sees of it.
#[derive(Deserialize)]
struct Chat<'a> {
    id: &'a str,
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
    prompt_token_ids: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, alias = "delta")]
    message: Message<'a>,
    finish_reason: Option<&'a str>,
    token_ids: Option<IgnoredAny>,
    logprobs: Option<IgnoredAny>,
    routed_experts: Option<&'a str>,
}

#[derive(Deserialize)]
struct Message<'a> {
    content: &'a str,
}

fn check_without_ids(call: Call, received: &[u8]) -> Result<()> {
    let received = std::str::from_utf8(received)?;
    let texts: Vec<&str> = match call.plan.kind {
        Kind::Json | Kind::Experts => vec![received],
        Kind::Sse => {
            let events = received.strip_suffix("data: [DONE]\n\n").context("the stream has no end")?;
            events.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap_or(event)).collect()
        }
    };
    let (mut content, mut finish_reason) = (String::new(), None);
    for text in texts {
        let chat: Chat<'_> = serde_json::from_str(text).context("the response is not a chat completion's")?;
        ensure!(chat.id == call.response_id(), "the response is {}'s", chat.id);
        let [choice] = &chat.choices[..] else { bail!("the response has {} choices", chat.choices.len()) };
        let has_ids = chat.prompt_token_ids.is_some() || choice.token_ids.is_some() || choice.logprobs.is_some();
        ensure!(!has_ids, "the response has ids or log-probabilities");
        content.push_str(choice.message.content);
        finish_reason = choice.finish_reason;
        if call.plan.kind == Kind::Experts {
            let experts = choice.routed_experts.context("the response has no experts")?;
            ensure!(npy::base64(call).flatten().eq(experts.bytes()), "the response's experts differ");
        }
    }
    ensure!(finish_reason == Some("stop"), "the response has no end");
    let is_same = content.bytes().eq(call.sampled().flat_map(|at| call.word(at)));
    ensure!(is_same, "the response's text differs");
    Ok(())
}

/// The attributes of a span that are checked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Attributes {
    #[serde(rename = "gen_ai.response.id")]
    response_id: Option<String>,
    /// Why its record is cut short, if it is.
    #[serde(rename = "tracewire.capture.response_truncated")]
    pub response_truncated: Option<String>,
    #[serde(rename = "tracewire.tokens.status")]
    status: Option<String>,
    #[serde(rename = "tracewire.tokens.reasons")]
    reasons: serde_json::Value,
    prompt_token_ids: Vec<u32>,
    response_token_ids: Vec<u32>,
    #[serde(rename = "tracewire.response_logprobs")]
    logprobs: Vec<f64>,
}

/// What a span's record is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanCheck {
    /// Its status is `exact`.
    pub is_exact: bool,
    /// Every id of prompt and response is the endpoint's.
    pub ids_equal: bool,
    /// Every log-probability is the endpoint's.
    pub logprobs_equal: bool,
    /// Why it is not `exact`.
    pub why: Option<String>,
}

impl Attributes {
    /// The call that a span is of, if it is one of these.
    pub fn call(&self, plan: super::plan::Plan) -> Option<Call> {
        self.status.as_ref()?;
        Call::of_response_id(plan, self.response_id.as_deref()?)
    }

    /// Compares with what the endpoint sent for `call`.
    pub fn check(&self, call: Call) -> SpanCheck {
        let ids =
            |recorded: &[u32], range: std::ops::Range<u64>| recorded.iter().copied().eq(range.map(|at| call.id(at)));
        let is_exact = self.status.as_deref() == Some("exact");
        let logprobs = self.logprobs.iter().map(|value| *value as f32);
        SpanCheck {
            is_exact,
            ids_equal: ids(&self.prompt_token_ids, call.prompt()) && ids(&self.response_token_ids, call.sampled()),
            logprobs_equal: logprobs.eq(call.sampled().map(|at| call.logprob(at))),
            why: (!is_exact).then(|| format!("{} {}", self.status.as_deref().unwrap_or("no status"), self.reasons)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::long::plan::Plan;
    use serde_json::json;

    fn call(kind: Kind) -> Call {
        let (prompt_ids, sampled_ids) = (3000, 100);
        Plan { kind, rollouts: 2, turns: 1, prompt_ids, sampled_ids, delay_ms: 0, interval_ms: 0 }.call(1, 0)
    }

    fn check(call: Call, expected: Expected, body: &[u8], piece: usize) -> Result<()> {
        let mut check = ResponseCheck::new(call, expected);
        body.chunks(piece).try_for_each(|data| check.push(data))?;
        check.finish()
    }

    /// The response as Tracewire strips it.
    fn stripped(call: Call) -> String {
        let body = String::from_utf8(response(call).flatten().collect()).unwrap();
        let events = body.split_inclusive("\n\n").map(|event| {
            let (data, end) = (event.trim_start_matches("data: ").trim_end(), &event[event.trim_end().len()..]);
            let Ok(mut chat) = serde_json::from_str::<serde_json::Value>(data) else { return event.to_owned() };
            let choice = &mut chat["choices"][0];
            (choice["token_ids"], choice["logprobs"]) = (json!(null), json!(null));
            chat["prompt_token_ids"] = json!(null);
            format!("{}{chat}{end}", if end.is_empty() { "" } else { "data: " })
        });
        events.collect()
    }

    const KINDS: [Kind; 3] = [Kind::Json, Kind::Sse, Kind::Experts];

    #[test]
    fn the_same_response_passes_in_any_pieces() {
        for kind in KINDS {
            let mut body: Vec<u8> = response(call(kind)).flatten().collect();
            for piece in [1, 7, 5000, body.len()] {
                check(call(kind), Expected::Same, &body, piece).unwrap();
            }
            assert!(check(call(kind), Expected::Same, &body[..body.len() - 1], 1000).is_err());
            body.push(b' ');
            assert!(check(call(kind), Expected::Same, &body, 1000).is_err());
            body[200] ^= 1;
            assert!(check(call(kind), Expected::Same, &body, 1000).is_err());
        }
    }

    #[test]
    fn a_stripped_response_passes_and_others_fail() {
        for kind in KINDS {
            let body = stripped(call(kind));
            check(call(kind), Expected::WithoutIds, body.as_bytes(), 1000).unwrap();
            let word = String::from_utf8(call(kind).word(3050).to_vec()).unwrap();
            for (from, to) in [(word.as_str(), "###"), ("\"stop\"", "null"), ("\"token_ids\":null", "\"token_ids\":[]")]
            {
                let wrong = body.replace(from, to);
                assert!(check(call(kind), Expected::WithoutIds, wrong.as_bytes(), 1000).is_err(), "{kind:?} {from}");
            }
            let whole: Vec<u8> = response(call(kind)).flatten().collect();
            assert!(check(call(kind), Expected::WithoutIds, &whole, 1000).is_err());
        }
    }

    #[test]
    fn a_span_is_compared_value_by_value() {
        let call = call(Kind::Json);
        let ids = |range: std::ops::Range<u64>| range.map(|at| call.id(at)).collect::<Vec<_>>();
        let logprobs: Vec<f32> = call.sampled().map(|at| call.logprob(at)).collect();
        let right = json!({ "gen_ai.response.id": call.response_id(), "tracewire.tokens.status": "exact", "other": {},
            "prompt_token_ids": ids(call.prompt()), "response_token_ids": ids(call.sampled()),
            "tracewire.response_logprobs": logprobs });
        let read = |value: &serde_json::Value| serde_json::from_value::<Attributes>(value.clone()).unwrap();
        assert_eq!(read(&right).call(call.plan), Some(call));
        let good = SpanCheck { is_exact: true, ids_equal: true, logprobs_equal: true, why: None };
        assert_eq!(read(&right).check(call), good);
        for (name, at) in [("prompt_token_ids", 2999), ("response_token_ids", 0)] {
            let mut wrong = right.clone();
            wrong[name][at] = json!(150_000);
            assert_eq!(read(&wrong).check(call), SpanCheck { ids_equal: false, ..good.clone() });
        }
        let mut wrong = right.clone();
        wrong["tracewire.response_logprobs"][5] = json!(-0.25);
        wrong["tracewire.tokens.status"] = json!("partial");
        let checked = read(&wrong).check(call);
        assert!(!checked.is_exact && checked.ids_equal && !checked.logprobs_equal && checked.why.is_some());
        assert_eq!(Attributes::default().call(call.plan), None);
    }
}

//! Streams without what was added, cut anywhere.

use super::*;
use crate::wire::json_strip::Change::{Null, Remove};
use crate::wire::json_strip::change;
use proptest::prelude::*;
use proptest::sample::Index;

fn changes() -> Changes {
    Changes {
        root: vec![("prompt_token_ids", Remove), ("sglext", Remove)],
        choice: vec![("token_ids", Remove), ("logprobs", Null)],
        ..Changes::default()
    }
}

fn stripped(stream: &[u8], cuts: &[Index], max_held_bytes: usize) -> String {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).chain([stream.len()]).collect();
    cuts.sort_unstable();
    let mut stripper = EventStripper { max_held_bytes, ..EventStripper::new(changes()) };
    let (mut out, mut from) = (Vec::new(), 0);
    for cut in cuts {
        out.extend(stripper.push(&stream[from..cut]));
        assert!(stripper.kept.len() <= max_held_bytes);
        from = cut;
    }
    out.extend(stripper.finish());
    assert!(stripper.is_empty());
    String::from_utf8_lossy(&out).into_owned()
}

/// What an event with one line of data loses.
fn expected(event: &str) -> String {
    let Some((before, rest)) = event.split_once("data: ") else { return event.to_owned() };
    let data = rest.trim_end_matches(['\r', '\n']);
    let Some(changed) = change(data.as_bytes(), &changes()) else { return event.to_owned() };
    let left = format!("{before}data: {}{}", String::from_utf8(changed).unwrap(), &rest[data.len()..]);
    if data.contains("sglext") { String::new() } else { left }
}

const STREAM: &str = "\u{feff}: hi\r\n\r\ndata: {\"prompt_token_ids\":[1],\"choices\":[{\"token_ids\":[2],\"delta\":{\"content\":\"é\"}}]}\r\n\r\nevent: x\ndata: {\"choices\":[]}\n\ndata: {\"choices\": [],\"usage\":null,\"sglext\":{\"input_ids\":[1]}}\n\ndata: [DONE]\n\ndata: {\"unfinished";

#[test]
fn comments_do_not_wait_for_events() {
    let mut stripper = EventStripper::new(Changes::default());
    let mut push = |part: &str| String::from_utf8(stripper.push(part.as_bytes()).to_vec()).unwrap();
    assert_eq!(push(": ping\n"), "");
    assert_eq!(push("\n: pong\r\n\r"), ": ping\n\n");
    assert_eq!(push("\ndata: {\"sglext\":{},"), ": pong\r\n\r\n");
    assert_eq!(
        push("\"choices\": [],\"usage\":null}\n\ndata: 1\n\n"),
        "data: {\"sglext\":{},\"choices\": [],\"usage\":null}\n\ndata: 1\n\n"
    );
}

#[test]
fn a_stream_loses_only_what_was_added() {
    let expected = "\u{feff}: hi\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"é\"}}]}\r\n\r\nevent: x\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\ndata: {\"unfinished";
    assert_eq!(stripped(STREAM.as_bytes(), &[], MAX_HELD_BYTES), expected);
    // A comment in front of an event that goes has a blank line of its own, and stays.
    let after_comment = ": ping\n\ndata: {\"choices\":[],\"sglext\":{}}\n\ndata: 1\n\n";
    assert_eq!(stripped(after_comment.as_bytes(), &[], MAX_HELD_BYTES), ": ping\n\ndata: 1\n\n");
}

#[test]
fn data_of_several_lines_keeps_them() {
    let event = "data: {\"id\":1,\ndata:\"prompt_token_ids\":[\nid: 7\ndata:1\n: 2\ndata: ],\"x\":2}\n\n";
    let expected = "data: {\"id\":1\ndata:\nid: 7\ndata:\n: 2\ndata: ,\"x\":2}\n\n";
    assert_eq!(stripped(event.as_bytes(), &[], MAX_HELD_BYTES), expected);
}

#[test]
fn of_a_long_event_only_what_stays_is_held() {
    let mut stripper = EventStripper::new(changes());
    assert_eq!(stripper.push(b"data: {\"id\":1,\"sglext\":[1"), "");
    let ids = ",1234567890".repeat(1000);
    for _ in 0..1000 {
        assert_eq!(stripper.push(ids.as_bytes()), "");
        assert!(stripper.kept.capacity() < 1000);
    }
    assert_eq!(stripper.push(b"],\"choices\":[]}\n"), "");
    assert_eq!(stripper.push(b"\ndata: {\"x\":\"").len(), 0);
    let text = "a".repeat(MAX_HELD_BYTES);
    assert_eq!(stripper.push(text.as_bytes()).len(), MAX_HELD_BYTES + 12);
    assert_eq!(stripper.push(b"b"), "b");
    assert_eq!(stripper.push(b"\",\"sglext\":1,\"choices\":[]}\n\n"), "\",\"choices\":[]}\n\n");
    assert!(stripper.is_empty());
}

proptest! {
    #[test]
    fn any_division_of_a_stream_gives_the_same(
        events in prop::collection::vec(prop::sample::select(EVENTS.to_vec()), 0..8),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
        unfinished in prop::option::of(any::<Index>()),
    ) {
        let stream = events.concat();
        let kept: String = events.iter().map(|event| expected(event)).collect();
        for max_held_bytes in [MAX_HELD_BYTES, SMALL_HELD_BYTES] {
            prop_assert_eq!(&stripped(stream.as_bytes(), &cuts, max_held_bytes), &kept);
            let part = &stream.as_bytes()[..unfinished.map_or(stream.len(), |end| end.index(stream.len() + 1))];
            prop_assert_eq!(stripped(part, &cuts, max_held_bytes), stripped(part, &[], max_held_bytes));
        }
    }

    #[test]
    fn what_is_no_json_passes(
        bytes in prop::collection::vec(prop::sample::select(b"data: \r\n{}[],\":x\\".to_vec()), 0..200),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        for max_held_bytes in [MAX_HELD_BYTES, 10] {
            prop_assert_eq!(stripped(&bytes, &cuts, max_held_bytes).into_bytes(), &bytes[..]);
        }
    }
}

/// What is left of SGLang's event fits in.
const SMALL_HELD_BYTES: usize = 40;
const EVENTS: &[&str] = &[
    ": hi\r\n\r\n",
    "data: {\"prompt_token_ids\":[1],\"choices\":[{\"token_ids\":[2],\"delta\":{\"content\":\"é\"}}]}\r\n\r\n",
    "event: x\rdata: {\"choices\":[{\"index\":0,\"logprobs\":{\"content\":[\"\\\\\"]} , \"token_ids\":[2]}]}\r\r",
    "event: x\ndata: {\"choices\":[]}\nid: 7\n\n",
    "data: {\"choices\": [],\"usage\":null,\"sglext\":{\"input_ids\":[1,22,333,4444,55555,666666,7777777]}}\n\n",
    "data: [DONE]\n\n",
    "data: {\"text\":\"long long long long long long long long long long\"}\n\n",
];

/// What an agent gets of these events when ids and usage were requested for it.
fn seen(events: &[&str]) -> String {
    let mut stripper = EventStripper::new(Changes { usage_event: UsageEvent::Removed, ..changes() });
    let mut seen = Vec::new();
    events.iter().for_each(|event| seen.extend(stripper.push(format!("data: {event}\n\n").as_bytes())));
    seen.extend(stripper.finish());
    String::from_utf8(seen).unwrap().replace("data: ", "").replace("\n\n", "\n").trim_end().to_owned()
}

#[test]
fn an_event_for_ids_alone_is_not_seen() {
    let seen = seen(&[
        r#"{"choices":[{"delta":{"role":"assistant","content":""},"token_ids":[1]}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"logprobs":{"content":[]},"finish_reason":null,"token_ids":[2]}]}"#,
        r#"{"choices":[{"delta": {},"token_ids":[3]},{"delta":{}}]}"#,
        r#"{"choices":[{"delta":{},"token_ids":[4]},{"delta":{"content":"x"}}]}"#,
        r#"{"choices":[{"delta":{"content":"\"delta\":{}"},"token_ids":[5]}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop","token_ids":[6]}]}"#,
    ]);
    let expected = [
        r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
        r#"{"choices":[{"delta":{}},{"delta":{"content":"x"}}]}"#,
        r#"{"choices":[{"delta":{"content":"\"delta\":{}"}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
    ];
    assert_eq!(seen, expected.join("\n"));
}

#[test]
fn the_usage_at_the_end_is_only_seen_by_agents_that_request_it() {
    let events = [
        r#"{"choices":[{"delta":{"content":"x"}}],"usage":{"completion_tokens":1}}"#,
        r#"{"choices":[],"usage":{"completion_tokens":1}}"#,
        "[DONE]",
    ];
    assert_eq!(seen(&events), [events[0], events[2]].join("\n"));
    let mut stripper = EventStripper::new(changes());
    let whole = format!("data: {}\n\n", events[1]);
    assert_eq!(stripper.push(whole.as_bytes()), whole);
}

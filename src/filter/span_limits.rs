//! The limits of one span, as those of OpenTelemetry's SDKs: what exceeds them is left out, and the span says how much.
//!
//! Order decides what stays: events and links are kept from the first, attributes in the order of their names. What is
//! essential ([`super::essential`]) is never cut, but counts.

use super::essential::Essential;
use super::limit_settings::LimitSettings;
use crate::trace::{Attributes, Span, Value, semconv as names};

/// How many parts of a span were cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CutParts {
    /// Attributes left out: of the span, its events and its links.
    pub(super) attributes: u64,
    /// Attributes of which a text was shortened.
    pub(super) values: u64,
    /// Events left out.
    pub(super) events: u64,
    /// Links left out.
    pub(super) links: u64,
}

impl LimitSettings {
    /// True if [`Self::cut`] may change the span.
    pub(super) fn exceeds(&self, span: &Span) -> bool {
        let too_many = |count: usize, limit: usize| limit > 0 && count > limit;
        let mut own = std::iter::once((&span.attributes, self.max_attributes));
        let mut events = span.events.iter().map(|event| (&event.attributes, self.max_event_attributes));
        let mut links =
            span.links.iter().filter_map(|link| Some((link.attributes.as_ref()?, self.max_link_attributes)));
        let mut is_cut = |(attributes, limit): (&Attributes, usize)| {
            too_many(counted(attributes), limit)
                || (self.max_attribute_chars > 0
                    && attributes.values().any(|value| has_long_text(value, self.max_attribute_chars)))
        };
        too_many(span.events.len(), self.max_events)
            || too_many(span.links.len(), self.max_links)
            || own.any(&mut is_cut)
            || events.any(&mut is_cut)
            || links.any(&mut is_cut)
    }

    /// Applies the limits, and marks the span.
    pub(super) fn cut(&self, span: &mut Span) -> CutParts {
        let essential = Essential::of(&span.attributes);
        let mut cut = CutParts {
            events: keep_first(&mut span.events, self.max_events, Essential::is_event),
            links: keep_first(&mut span.links, self.max_links, Essential::is_link),
            ..CutParts::default()
        };
        for event in &mut span.events {
            let of_event = self.cut_attributes(&mut event.attributes, self.max_event_attributes, essential);
            cut.add_nested(&mut event.attributes, of_event);
        }
        for attributes in span.links.iter_mut().filter_map(|link| link.attributes.as_mut()) {
            let of_link = self.cut_attributes(attributes, self.max_link_attributes, essential);
            cut.add_nested(attributes, of_link);
        }
        let own = self.cut_attributes(&mut span.attributes, self.max_attributes, essential);
        add_count(&mut span.attributes, names::SPAN_DROPPED_ATTRIBUTES, own.dropped);
        add_count(&mut span.attributes, names::SPAN_DROPPED_EVENTS, cut.events);
        add_count(&mut span.attributes, names::SPAN_DROPPED_LINKS, cut.links);
        cut.attributes += own.dropped;
        cut.values += own.shortened.len() as u64;
        if !own.shortened.is_empty() {
            span.set(names::SPAN_TRUNCATED_ATTRIBUTES, own.shortened);
        }
        cut
    }

    fn cut_attributes(&self, attributes: &mut Attributes, limit: usize, essential: Essential) -> CutAttributes {
        let mut cut = CutAttributes::default();
        if limit > 0 && counted(attributes) > limit {
            let before = attributes.len();
            let fixed = attributes.keys().filter(|name| essential.is_attribute(name) && !is_mark(name)).count();
            let mut room = limit.saturating_sub(fixed);
            attributes.retain(|name, _| essential.is_attribute(name) || takes_place(&mut room));
            cut.dropped = (before - attributes.len()) as u64;
        }
        if self.max_attribute_chars > 0 {
            for (name, value) in attributes.iter_mut().filter(|(name, _)| !essential.is_attribute(name)) {
                if shorten(value, self.max_attribute_chars) {
                    cut.shortened.push(name.clone());
                }
            }
        }
        cut
    }
}

/// What was cut of one list of attributes.
#[derive(Default)]
struct CutAttributes {
    dropped: u64,
    /// Names of attributes with a shortened text.
    shortened: Vec<String>,
}

impl CutParts {
    /// Adds what was cut of an event or a link, and marks it there.
    fn add_nested(&mut self, attributes: &mut Attributes, cut: CutAttributes) {
        add_count(attributes, names::DROPPED_ATTRIBUTES, cut.dropped);
        self.attributes += cut.dropped;
        self.values += cut.shortened.len() as u64;
        if !cut.shortened.is_empty() {
            attributes.insert(names::TRUNCATED_ATTRIBUTES.to_owned(), cut.shortened.into());
        }
    }
}

/// The number of attributes that a limit counts.
fn counted(attributes: &Attributes) -> usize {
    attributes.keys().filter(|name| !is_mark(name)).count()
}

/// True for what a limit has written, here or at the sender.
fn is_mark(name: &str) -> bool {
    [
        names::SPAN_DROPPED_ATTRIBUTES,
        names::SPAN_DROPPED_EVENTS,
        names::SPAN_DROPPED_LINKS,
        names::SPAN_TRUNCATED_ATTRIBUTES,
        names::DROPPED_ATTRIBUTES,
        names::TRUNCATED_ATTRIBUTES,
    ]
    .contains(&name)
}

/// Keeps what is essential, and of the rest the first elements that fit. Returns the number of those left out.
fn keep_first<T>(list: &mut Vec<T>, limit: usize, is_essential: impl Fn(&T) -> bool) -> u64 {
    if limit == 0 || list.len() <= limit {
        return 0;
    }
    let before = list.len();
    let mut room = limit.saturating_sub(list.iter().filter(|element| is_essential(element)).count());
    list.retain(|element| is_essential(element) || takes_place(&mut room));
    (before - list.len()) as u64
}

fn takes_place(room: &mut usize) -> bool {
    let has_room = *room > 0;
    *room = room.saturating_sub(1);
    has_room
}

/// Adds to a count that the span may have from its sender.
fn add_count(attributes: &mut Attributes, name: &str, count: u64) {
    if count > 0 {
        let before = attributes.get(name).and_then(Value::as_int).and_then(|before| u64::try_from(before).ok());
        attributes.insert(name.to_owned(), before.unwrap_or(0).saturating_add(count).into());
    }
}

fn has_long_text(value: &Value, max_chars: usize) -> bool {
    match value {
        Value::String(text) => end_of(text, max_chars).is_some(),
        Value::Strings(texts) => texts.iter().any(|text| end_of(text, max_chars).is_some()),
        _ => false,
    }
}

/// Shortens the texts of a value. True if one was longer.
fn shorten(value: &mut Value, max_chars: usize) -> bool {
    let mut is_shortened = false;
    let mut shorten = |text: &mut String| {
        if let Some(end) = end_of(text, max_chars) {
            text.truncate(end);
            is_shortened = true;
        }
    };
    match value {
        Value::String(text) => shorten(text),
        Value::Strings(texts) => texts.iter_mut().for_each(shorten),
        _ => {}
    }
    is_shortened
}

/// Where the characters beyond the first `max_chars` begin. `None` if there are no more.
fn end_of(text: &str, max_chars: usize) -> Option<usize> {
    // A character has at least one byte.
    if text.len() <= max_chars { None } else { text.char_indices().nth(max_chars).map(|(end, _)| end) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as JsonValue, json};

    fn span(attributes: &JsonValue, events: usize, links: usize) -> Span {
        let event = json!({"name": "e", "attributes": {"a": "ä".repeat(9), "b": 2, "c": 3}, "timestamp": null});
        let context = json!({"trace_id": "t", "span_id": "l", "is_remote": false, "trace_state": {}});
        let link = json!({"context": context, "attributes": {"x": 1, "y": 2}});
        serde_json::from_value(json!({"rollout_id": "r", "attempt_id": "a", "sequence_id": 1, "trace_id": "t", "span_id": "s",
            "parent_id": null, "name": "x", "status": {"status_code": "UNSET", "description": null}, "attributes": attributes,
            "events": vec![event; events], "links": vec![link; links], "start_time": null, "end_time": null, "context": null,
            "parent": null, "resource": {"attributes": {}, "schema_url": ""}}))
        .unwrap()
    }

    #[test]
    fn what_is_cut_is_marked() {
        let limits = LimitSettings {
            max_attributes: 3,
            max_attribute_chars: 4,
            max_events: 2,
            max_links: 1,
            max_event_attributes: 2,
            max_link_attributes: 1,
            ..LimitSettings::default()
        };
        let attributes =
            json!({"a": "short", "b": ["äöüß", "äöüßé"], "c": 1, "d": 2, "gen_ai.input.messages": "long enough"});
        let mut span = span(&attributes, 5, 3);
        assert!(limits.exceeds(&span));
        let cut = limits.cut(&mut span);
        assert_eq!(cut, CutParts { attributes: 2 + 2 + 1, values: 2 + 2, events: 3, links: 2 });
        let expected = json!({"a": "shor", "b": ["äöüß", "äöüß"], "gen_ai.input.messages": "long enough",
            "tracewire.span.dropped_attributes": 2, "tracewire.span.dropped_events": 3, "tracewire.span.dropped_links": 2,
            "tracewire.span.truncated_attributes": ["a", "b"]});
        assert_eq!(serde_json::to_value(&span.attributes).unwrap(), expected);
        let event = json!({"a": "ääää", "b": 2, "tracewire.dropped_attributes": 1,
            "tracewire.truncated_attributes": ["a"]});
        assert_eq!(serde_json::to_value(&span.events[1].attributes).unwrap(), event);
        assert_eq!(span.links.len(), 1);
    }

    #[test]
    fn counts_of_the_sender_are_added_to() {
        let limits = LimitSettings { max_attributes: 1, max_events: 1, ..LimitSettings::default() };
        let mut span = span(&json!({"a": 1, "tracewire.span.dropped_events": 7}), 3, 0);
        limits.cut(&mut span);
        let expected = json!({"a": 1, "tracewire.span.dropped_events": 9});
        assert_eq!(serde_json::to_value(&span.attributes).unwrap(), expected, "the count takes no place of its own");
    }

    #[test]
    fn calls_keep_their_messages_by_all_conventions() {
        let limits = LimitSettings { max_attributes: 1, max_attribute_chars: 1, ..LimitSettings::default() };
        for kept in [
            json!({"gen_ai.prompt.0.content": "abc", "traceloop.entity.input": "abc"}),
            json!({"llm.input_messages.0.message.content": "abc", "input.value": "abc", "output.value": "abc"}),
            json!({"prompt_token_ids": [1, 2], "response_token_ids.1": [3], "tracewire.response_logprobs": [0.5]}),
            json!({"agentlightning.reward.0.value": 1.0, "error.type": "timeout", "url.full": "http://h/"}),
        ] {
            let mut span = span(&kept, 0, 0);
            limits.cut(&mut span);
            assert_eq!(serde_json::to_value(&span.attributes).unwrap(), kept);
        }
        let mut other = span(&json!({"input.value": "abc", "prompt_token_ids_count": 1}), 0, 0);
        assert_eq!(limits.cut(&mut other), CutParts { attributes: 1, values: 1, ..CutParts::default() });
    }

    proptest! {
        /// A span within its limits is not changed, and a cut one is within them, but for what is essential and the marks.
        #[test]
        fn limits_hold(names in prop::collection::btree_set("[a-f]{1,3}", 0..12), text in "\\PC{0,12}", limit in 0..8_usize, chars in 0..8_usize) {
            let attributes: Attributes = names.iter().map(|name| (name.clone(), text.as_str().into())).collect();
            let mut span = span(&json!({}), 0, 0);
            span.attributes.clone_from(&attributes);
            let limits = LimitSettings { max_attributes: limit, max_attribute_chars: chars, ..LimitSettings::default() };
            let exceeds = limits.exceeds(&span);
            let cut = limits.cut(&mut span);
            prop_assert_eq!(exceeds, cut != CutParts::default());
            prop_assert_eq!(exceeds, span.attributes != attributes);
            span.attributes.retain(|name, _| !name.starts_with("tracewire."));
            prop_assert_eq!(span.attributes.len() as u64 + cut.attributes, attributes.len() as u64);
            if limit > 0 {
                prop_assert!(span.attributes.len() <= limit);
            }
            for value in span.attributes.values() {
                let kept = value.as_str().unwrap_or_default();
                prop_assert!(text.starts_with(kept) && (chars == 0 || kept.chars().count() <= chars));
            }
        }
    }
}

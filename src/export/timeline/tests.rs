//! The timeline as a whole.

use super::draw::{TimelineOptions, render};
use super::siblings::Fold;
use crate::trace::Span;
use crate::trace::semconv as names;
use proptest::prelude::*;

pub(super) fn span(id: &str, parent: Option<&str>, name: &str, start_ms: u64, end_ms: u64) -> Span {
    let json = serde_json::json!({
        "rollout_id": "ro-1", "attempt_id": "at-1", "sequence_id": start_ms, "trace_id": "t", "span_id": id,
        "parent_id": parent, "name": name, "status": {"status_code": "UNSET", "description": null},
        "attributes": {}, "events": [], "links": [], "start_time": start_ms as f64 / 1e3,
        "end_time": end_ms as f64 / 1e3, "context": null, "parent": null,
        "resource": {"attributes": {}, "schema_url": ""},
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn nests_by_parent_and_draws_to_scale() {
    let spans = [
        span("a", None, "agent", 1000, 2000),
        span("b", Some("a"), "first", 1000, 1500),
        span("c", Some("b"), "inner", 1100, 1200),
        span("d", Some("a"), "second", 1500, 2000),
    ];
    let text = render("x", &spans, &TimelineOptions::default());
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("✓ agent") && lines[0].ends_with(&"━".repeat(20)), "{text}");
    assert!(lines[1].starts_with("├─ ✓ first") && lines[2].starts_with("│  └─ ✓ inner"), "{text}");
    assert!(
        lines[3].starts_with("└─ ✓ second") && lines[3].ends_with(&format!("{}{}", " ".repeat(10), "━".repeat(10))),
        "{text}"
    );
}

#[test]
fn a_failure_is_explained_below_its_span() {
    let mut failed = span("a", None, "GET", 0, 5);
    failed.status = crate::trace::Status {
        status_code: crate::trace::StatusCode::Error,
        description: Some("Connection refused (os error 111)".to_owned()),
    };
    failed.set(names::OUTCOME, "failed");
    failed.set(names::ERROR_TYPE, "connection_refused");
    let text = render("x", &[failed.clone()], &TimelineOptions::default());
    assert!(text.contains("  connection_refused: Connection refused (os error 111); check that"), "{text}");
    failed.set(names::CLIENT_ADVICE, "set SSL_CERT_FILE");
    let text = render("x", &[failed], &TimelineOptions::default());
    assert!(text.contains("rejected the proxy's certificate: set SSL_CERT_FILE"), "{text}");
}

#[test]
fn orphans_cycles_and_unsafe_names_are_drawn() {
    let spans = [
        span("a", Some("gone"), "or\u{1b}[2Jphan", 0, 5),
        span("b", Some("c"), "one", 0, 5),
        span("c", Some("b"), "two", 0, 5),
    ];
    let text = render("title", &spans, &TimelineOptions::default());
    assert!(text.starts_with("title\n") && text.contains("one") && text.contains("two"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

proptest! {
    #[test]
    fn no_line_is_wider_than_the_limit(names in prop::collection::vec(".{0,200}", 1..8), width in 10usize..160) {
        let spans: Vec<Span> = names.iter().enumerate().map(|(at, name)| {
            let parent = at.checked_sub(1).map(|above| above.to_string());
            span(&at.to_string(), parent.as_deref(), name, at as u64, at as u64 + 7)
        }).collect();
        for line in render("t", &spans, &TimelineOptions { width, ..TimelineOptions::default() }).lines() {
            prop_assert!(line.chars().count() <= width, "{line:?}");
        }
    }
}

#[test]
fn a_long_list_is_folded_and_says_so() {
    let mut spans = vec![span("root", None, "agent", 0, 1000)];
    spans.extend((0..5000).map(|at| span(&at.to_string(), Some("root"), "step", at, at + 1)));
    spans[3000].status = crate::trace::Status { status_code: crate::trace::StatusCode::Error, description: None };
    let folded = render("x", &spans, &TimelineOptions { fold: Fold::LongLists, ..TimelineOptions::default() });
    assert_eq!(folded.lines().count(), 1 + 15 + 1 + 1 + 1 + 15 + 1, "{folded}");
    assert!(folded.contains("⋮  2984 more; `trace") && folded.contains("⋮  1985 more; `trace"), "{folded}");
    assert_eq!(render("x", &spans, &TimelineOptions::default()).lines().count(), 5002);
}

#[test]
fn rewards_have_their_values() {
    let mut annotation = span("a", None, "agentlightning.annotation", 0, 0);
    annotation.set("agentlightning.reward.0.name", "primary");
    annotation.set("agentlightning.reward.0.value", 0.75);
    let text = render("x", &[annotation], &TimelineOptions::default());
    assert!(text.contains("reward primary 0.75"), "{text}");
}

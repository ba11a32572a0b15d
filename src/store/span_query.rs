//! Reading the spans of a rollout page by page: which spans, what of each, and where the next page begins.

use crate::trace::{AttemptId, RolloutId, Span};
use std::num::NonZeroUsize;

/// Which spans of a rollout a page has, and what of each.
#[derive(Clone, Debug)]
pub struct SpanQuery {
    /// The rollout.
    pub rollout_id: RolloutId,
    /// Spans of this attempt; `None`: of all.
    pub attempt_id: Option<AttemptId>,
    /// Spans after this place.
    pub after: Option<SpanPlace>,
    /// What of each span is read.
    pub content: SpanContent,
    /// Maximum number of spans of the page. It has fewer if they are long.
    pub limit: NonZeroUsize,
}

impl SpanQuery {
    /// All spans of a rollout with their whole content.
    pub fn of_rollout(rollout_id: RolloutId) -> Self {
        Self { rollout_id, attempt_id: None, after: None, content: SpanContent::Whole, limit: MAX_PAGE_SPANS }
    }
}

/// What of a span is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanContent {
    /// The whole span.
    Whole,
    /// Of the long attributes, those that a database stores outside of the span (bodies, messages, token ids), only the named
    /// ones have their values. The others are empty: a text or a list of their type.
    Outline(&'static [&'static str]),
    /// As an outline. A store may leave the long lists of numbers in a text as attributes of their own, as they are stored:
    /// see `trace::number_lists`.
    OutlineWithLists(&'static [&'static str]),
}

impl SpanContent {
    /// True if the values of this long attribute are wanted.
    pub(super) fn includes(self, attribute: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::Outline(whole) | Self::OutlineWithLists(whole) => whole.contains(&attribute),
        }
    }

    /// True if long lists of numbers belong into their texts.
    pub(super) fn has_whole_texts(self) -> bool {
        !matches!(self, Self::OutlineWithLists(_))
    }
}

/// The place of a span in the order of its rollout: by sequence id, start time (none first), and order of insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanPlace {
    /// The span's sequence id.
    pub sequence_id: u64,
    /// Its start, in nanoseconds since the Unix epoch; `None` if it has none.
    pub start_ns: Option<i64>,
    /// Increases with each stored span, and identifies the span within its store.
    pub number: i64,
}

/// A page of spans.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanPage {
    /// In order. The place of the last one is where the next page begins.
    pub spans: Vec<(SpanPlace, Span)>,
    /// True if no span matches after these. A page that is not the last can be empty only if spans were removed meanwhile.
    pub is_last: bool,
}

/// The first of the spans at some places.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpansAt {
    /// In the order of the places. Those that are not stored are absent.
    pub spans: Vec<(SpanPlace, Span)>,
    /// How many of the places were read; at least 1 if there are any.
    pub places_read: usize,
}

/// Spans of a page if the query wants no fewer.
pub(super) const MAX_PAGE_SPANS: NonZeroUsize = match NonZeroUsize::new(1000) {
    Some(spans) => spans,
    None => NonZeroUsize::MIN,
};

/// A page ends with the span that makes it at least this long, so that the memory of a read does not grow with the rollout.
pub(super) const PAGE_BYTES: usize = 512 * 1024;

//! Reading the spans of a rollout page by page: which spans, what of each, and where the next page begins.

use crate::trace::{AttemptId, RolloutId, Span};

/// Which spans of a rollout a page has, and what of each.
#[derive(Clone, Debug)]
pub struct SpanQuery {
    /// The rollout.
    pub rollout_id: RolloutId,
    /// Spans of this attempt; `None`: of all.
    pub attempt_id: Option<AttemptId>,
    /// Spans at these places, which are places of this rollout; `None`: at all. In ascending order.
    pub places: Option<Vec<SpanPlace>>,
    /// Spans after this place.
    pub after: Option<SpanPlace>,
    /// What of each span is read.
    pub content: SpanContent,
    /// Maximum number of spans of the page, at least 1. It has fewer if they are long.
    pub limit: usize,
}

impl SpanQuery {
    /// True for the places that the query names.
    pub(super) fn includes(&self, place: SpanPlace) -> bool {
        self.after.is_none_or(|after| place > after)
            && self.places.as_ref().is_none_or(|places| places.binary_search(&place).is_ok())
    }

    /// All spans of a rollout with their whole content.
    pub fn of_rollout(rollout_id: RolloutId) -> Self {
        let (attempt_id, places, after) = (None, None, None);
        Self { rollout_id, attempt_id, places, after, content: SpanContent::Whole, limit: MAX_PAGE_SPANS }
    }
}

/// What of a span is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanContent {
    /// The whole span.
    Whole,
    /// Of the long attributes, those that a database stores outside of the span (bodies, messages, token ids), only the named
    /// ones have their values. The others are empty: a text or a list of their type. A store in memory returns all values.
    Outline(&'static [&'static str]),
}

impl SpanContent {
    /// True if the values of this long attribute are wanted.
    pub(super) fn includes(self, attribute: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::Outline(whole) => whole.contains(&attribute),
        }
    }
}

/// The place of a span in the order of its rollout: by sequence id, start time (none first), and order of insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanPlace {
    pub(super) sequence_id: u64,
    /// As in the database: signed.
    pub(super) start_ns: Option<i64>,
    /// Number of the row.
    pub(super) number: i64,
}

/// A page of spans.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanPage {
    /// In order. The place of the last one is where the next page begins.
    pub spans: Vec<(SpanPlace, Span)>,
    /// True if no span matches after these. A page that is not the last can be empty only if spans were removed meanwhile.
    pub is_last: bool,
}

/// Spans of a page if the query wants no fewer.
pub(super) const MAX_PAGE_SPANS: usize = 1000;

/// A page ends with the span that makes it at least this long, so that the memory of a read does not grow with the rollout.
pub(super) const PAGE_BYTES: usize = 512 * 1024;

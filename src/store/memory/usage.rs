//! What a store in memory takes.

use super::state::State;
use crate::store::usage::{StoreKind, StoreUsage};

/// The size is an estimate, and the ends of all spans are read.
pub(super) fn usage(state: &State) -> StoreUsage {
    let ends = || state.spans.values().filter_map(|span| span.end_time.or(span.start_time));
    StoreUsage {
        kind: StoreKind::Memory,
        oldest_span: ends().min(),
        newest_span: ends().max(),
        database_bytes: state.statistics().size_bytes,
        ..StoreUsage::default()
    }
}

//! Sends the spans of a spool file to the server.

use crate::store::api::{RolloutSummary, SharedStore, Store};
use crate::store::error::{FailedAppend, Result};
use crate::store::span_query::SpanQuery;
use crate::store::sqlite::SqliteStore;
use crate::trace::{RolloutId, Span};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Result of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drained {
    /// Spans that the server has now.
    pub(super) sent: u64,
    /// Spans that it rejected for their data.
    pub(super) dropped: u64,
}

/// What was done with the spans of a file, so that a drain that an error ended goes on where it was. Some 16 bytes for each span.
#[derive(Default)]
pub(super) struct Progress {
    drained: Drained,
    /// Hashes of the ids of spans that need not be sent again.
    done: HashMap<RolloutId, HashSet<u64>>,
    hasher: RandomState,
}

impl Progress {
    /// What was done in all.
    pub(super) fn drained(&self) -> Drained {
        self.drained
    }

    fn is_done(&self, span: &Span) -> bool {
        self.done.get(&span.rollout_id).is_some_and(|done| done.contains(&self.hash(span)))
    }

    fn note(&mut self, span: &Span) {
        let hash = self.hash(span);
        self.done.entry(span.rollout_id.clone()).or_default().insert(hash);
    }

    fn hash(&self, span: &Span) -> u64 {
        self.hasher.hash_one((&span.attempt_id, &span.span_id))
    }
}

/// Sends the spans of `file` to the server that were not sent yet. Only spans that the server rejects for their data are dropped,
/// each with a log message; other spans do not wait for them. Any other error ends the drain; the next one goes on. After a
/// restart all are sent again: the server ignores the ones that it has already.
pub(super) async fn drain(file: &SqliteStore, server: &SharedStore, progress: &mut Progress) -> Result<()> {
    for RolloutSummary { rollout, spans, .. } in file.rollouts(usize::MAX).await? {
        if progress.done.get(&rollout.rollout_id).is_some_and(|done| done.len() as u64 >= spans) {
            continue;
        }
        let mut query = SpanQuery { limit: MAX_BATCH, ..SpanQuery::of_rollout(rollout.rollout_id) };
        loop {
            let page = file.span_page(query.clone()).await?;
            query.after = page.spans.last().map(|(place, _)| *place).or(query.after);
            let spans = page.spans.into_iter().map(|(_, span)| span);
            let left: Vec<Arc<Span>> = spans.filter(|span| !progress.is_done(span)).map(Arc::new).collect();
            send(&left, server, progress).await?;
            if page.is_last {
                break;
            }
        }
    }
    Ok(())
}

async fn send(batch: &[Arc<Span>], server: &SharedStore, progress: &mut Progress) -> Result<()> {
    match server.append(batch.to_vec()).await {
        Ok(_) => {
            progress.drained.sent += batch.len() as u64;
            batch.iter().for_each(|span| progress.note(span));
            return Ok(());
        }
        Err(error) if error.failed_append() == FailedAppend::Retry => return Err(error),
        Err(_) => {}
    }
    for span in batch {
        match server.append(vec![Arc::clone(span)]).await {
            Ok(_) => progress.drained.sent += 1,
            Err(error) if error.failed_append() == FailedAppend::Retry => return Err(error),
            Err(error) => {
                progress.drained.dropped += 1;
                tracing::error!(%error, rollout_id = %span.rollout_id, span_id = span.span_id, "a span is lost: the server rejected its data");
            }
        }
        progress.note(span);
    }
    Ok(())
}

/// Spans in one append.
const MAX_BATCH: NonZeroUsize = NonZeroUsize::new(256).unwrap();

#[cfg(test)]
mod tests {
    use super::super::super::error::StoreError;
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn only_errors_in_the_data_drop_spans() {
        let path = PathBuf::from("x");
        let cause = "y".to_owned();
        for (error, expected) in [
            (StoreError::InvalidData { cause: cause.clone() }, FailedAppend::Drop),
            (StoreError::Unreachable { server: "s".to_owned(), cause: cause.clone() }, FailedAppend::Retry),
            // A read-only server, for example.
            (StoreError::Other(cause.clone()), FailedAppend::Retry),
            (StoreError::Full { path: path.clone() }, FailedAppend::Retry),
            (StoreError::Locked { path: path.clone() }, FailedAppend::Retry),
            (StoreError::Unusable { path, cause }, FailedAppend::Retry),
            (StoreError::Closed, FailedAppend::Retry),
        ] {
            assert_eq!(error.failed_append(), expected, "{error}");
        }
    }
}

//! Sends the spans of a spool file to the server.

use crate::store::api::{SharedStore, Store};
use crate::store::error::{FailedAppend, Result};
use crate::store::sqlite::SqliteStore;
use crate::trace::Span;
use std::sync::Arc;

/// Result of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drained {
    /// Spans that the server has now.
    pub(super) sent: u64,
    /// Spans that it rejected for their data.
    pub(super) dropped: u64,
}

/// Sends all spans of `file` to the server. Only spans that the server rejects for their data are dropped, each with a log
/// message; other spans do not wait for them. Any other error ends the drain, and all spans remain in the file: the server
/// ignores the ones that it has already when they are sent again.
pub(super) async fn drain(file: &SqliteStore, server: &SharedStore) -> Result<Drained> {
    let mut drained = Drained::default();
    for summary in file.rollouts(usize::MAX).await? {
        let spans = file.spans(summary.rollout.rollout_id, None).await?;
        for batch in spans.chunks(MAX_BATCH) {
            let batch: Vec<Arc<Span>> = batch.iter().cloned().map(Arc::new).collect();
            send(batch, server, &mut drained).await?;
        }
    }
    Ok(drained)
}

async fn send(batch: Vec<Arc<Span>>, server: &SharedStore, drained: &mut Drained) -> Result<()> {
    match server.append(batch.clone()).await {
        Ok(_) => {
            drained.sent += batch.len() as u64;
            return Ok(());
        }
        Err(error) if error.failed_append() == FailedAppend::Retry => return Err(error),
        Err(_) => {}
    }
    for span in batch {
        match server.append(vec![Arc::clone(&span)]).await {
            Ok(_) => drained.sent += 1,
            Err(error) if error.failed_append() == FailedAppend::Retry => return Err(error),
            Err(error) => {
                drained.dropped += 1;
                tracing::error!(%error, rollout_id = %span.rollout_id, span_id = span.span_id, "a span is lost: the server rejected its data");
            }
        }
    }
    Ok(())
}

/// Spans in one append.
const MAX_BATCH: usize = 256;

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

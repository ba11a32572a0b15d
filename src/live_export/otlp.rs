//! An export of spans over OTLP.

use super::otlp_client::OtlpClient;
use super::outcome::{DropReason, Outcome};
use super::reader::{Destination, Page, Prepared};
use crate::export::spans::AttributeConventions;
use crate::store::{Result, SharedStore};
use crate::trace::Span;
use crate::wire::otlp::encoded;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// A receiver of spans.
pub(super) struct OtlpReceiver {
    pub(super) store: SharedStore,
    pub(super) client: OtlpClient,
    pub(super) attributes: AttributeConventions,
    pub(super) max_batch_spans: usize,
}

impl Destination for OtlpReceiver {
    type Item = Arc<Span>;
    type Request = Bytes;

    async fn newest(&self) -> Result<u64> {
        Ok(self.store.spans_by_number(0, 0).await?.newest)
    }

    async fn page(&self, after: u64) -> Result<Page<Arc<Span>>> {
        let page = self.store.spans_by_number(after, self.max_batch_spans).await?;
        let (items, positions) = (Arc::new(page.spans), page.numbers);
        Ok(Page { items, positions, through: page.through, removed: page.removed, newest: page.newest })
    }

    async fn prepare(&self, items: Arc<Vec<Arc<Span>>>, part: Range<usize>) -> Result<Prepared<Bytes>> {
        let (encoding, attributes) = (self.client.encoding(), self.attributes);
        let encode = move || encoding.body(encoded(encoding.format(), &attributes.of_shared(&items[part])).ok()?);
        let body = tokio::task::spawn_blocking(encode).await.ok().flatten();
        Ok(body.map_or(Prepared::Nothing(DropReason::Encoding), Prepared::Request))
    }

    async fn post(&self, body: Bytes) -> Outcome {
        self.client.post(body).await
    }
}

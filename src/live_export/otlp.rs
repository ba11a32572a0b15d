//! An export of spans over OTLP/HTTP.

use super::http::Poster;
use super::outcome::{DropReason, Outcome, of_otlp};
use super::reader::{Destination, Page, Prepared};
use super::settings::{Compression, OtlpSettings, Protocol};
use crate::store::{Result, SharedStore};
use crate::trace::Span;
use crate::wire::encoding::gzip;
use crate::wire::otlp::{OtlpFormat, encoded};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use std::ops::Range;
use std::sync::Arc;

/// A receiver of spans.
pub(super) struct OtlpReceiver {
    store: SharedStore,
    poster: Poster,
    format: OtlpFormat,
    compression: Compression,
    max_batch_spans: usize,
}

impl OtlpReceiver {
    pub(super) fn new(store: SharedStore, poster: Poster, settings: &OtlpSettings) -> Self {
        let format = match settings.protocol {
            Protocol::Protobuf => OtlpFormat::Protobuf,
            Protocol::Json => OtlpFormat::Json,
        };
        Self { store, poster, format, compression: settings.compression, max_batch_spans: settings.max_batch_spans }
    }
}

impl Destination for OtlpReceiver {
    type Item = Span;
    type Request = Bytes;

    async fn newest(&self) -> Result<u64> {
        Ok(self.store.spans_by_number(0, 0).await?.newest)
    }

    async fn page(&self, after: u64) -> Result<Page<Span>> {
        let page = self.store.spans_by_number(after, self.max_batch_spans).await?;
        let (items, positions) = (Arc::new(page.spans), page.numbers);
        Ok(Page { items, positions, through: page.through, removed: page.removed, newest: page.newest })
    }

    async fn prepare(&self, items: Arc<Vec<Span>>, part: Range<usize>) -> Result<Prepared<Bytes>> {
        let (format, compression) = (self.format, self.compression);
        let encode = move || {
            let body = encoded(format, &items[part]).ok()?;
            match compression {
                Compression::Gzip => gzip(&body).ok(),
                Compression::None => Some(body),
            }
        };
        let body = tokio::task::spawn_blocking(encode).await.ok().flatten();
        Ok(body.map_or(Prepared::Nothing(DropReason::Encoding), |body| Prepared::Request(Bytes::from(body))))
    }

    async fn post(&self, body: Bytes) -> Outcome {
        let content_type = HeaderValue::from_static(self.format.content_type());
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
        if self.compression == Compression::Gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        of_otlp(self.poster.post(body, headers).await)
    }
}

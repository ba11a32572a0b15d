//! Sends OTLP messages to a receiver, by the protocol of its settings.

use super::grpc::{call_headers, of_grpc};
use super::http::Poster;
use super::otlp_settings::{Compression, OtlpSettings, Protocol, Signal};
use super::outcome::{Outcome, of_otlp};
use super::settings_error::ExportSettingsError;
use crate::tls::Offer;
use crate::upstream::Upstream;
use crate::wire::encoding::gzip;
use crate::wire::grpc::{MessageEncoding, framed};
use crate::wire::otlp::OtlpFormat;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

/// A receiver of OTLP messages.
pub(super) struct OtlpClient {
    poster: Poster,
    encoding: OtlpEncoding,
}

/// How messages become the bodies of requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct OtlpEncoding {
    protocol: Protocol,
    compression: Compression,
}

impl OtlpClient {
    /// The receiver of a signal by the settings, over `upstream`.
    pub(super) fn new(
        settings: &OtlpSettings,
        signal: Signal,
        upstream: Upstream,
    ) -> Result<Self, ExportSettingsError> {
        let endpoint = &settings.endpoint;
        let offer = if settings.protocol == Protocol::Grpc { Offer::Http2 } else { Offer::Http1 };
        let unusable = || ExportSettingsError::Endpoint { text: endpoint.as_str().to_owned() };
        let (origin, uri) = endpoint.origin().zip(settings.uri(signal)).ok_or_else(unusable)?;
        let (headers, timeout) = (settings.header_fields()?, settings.timeout);
        let poster = Poster { upstream, origin, uri, offer, headers, timeout };
        Ok(Self { poster, encoding: OtlpEncoding { protocol: settings.protocol, compression: settings.compression } })
    }

    pub(super) fn encoding(&self) -> OtlpEncoding {
        self.encoding
    }

    /// Sends a body that [`OtlpEncoding::body`] made.
    pub(super) async fn post(&self, body: Bytes) -> Outcome {
        let OtlpEncoding { protocol, compression } = self.encoding;
        if protocol == Protocol::Grpc {
            return of_grpc(self.poster.post(body, call_headers(compression, self.poster.timeout)).await);
        }
        let content_type = HeaderValue::from_static(self.encoding.format().content_type());
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
        if compression == Compression::Gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        of_otlp(self.poster.post(body, headers).await)
    }
}

impl OtlpEncoding {
    /// The form of messages.
    pub(super) fn format(self) -> OtlpFormat {
        match self.protocol {
            Protocol::Protobuf | Protocol::Grpc => OtlpFormat::Protobuf,
            Protocol::Json => OtlpFormat::Json,
        }
    }

    /// A message, compressed and framed. `None` if it can't be.
    pub(super) fn body(self, message: Vec<u8>) -> Option<Bytes> {
        let body = match (self.protocol, self.compression) {
            (Protocol::Grpc, Compression::Gzip) => framed(message, MessageEncoding::Gzip).ok()?,
            (Protocol::Grpc, Compression::None) => framed(message, MessageEncoding::Identity).ok()?,
            (_, Compression::Gzip) => gzip(&message).ok()?,
            (_, Compression::None) => message,
        };
        Some(Bytes::from(body))
    }
}

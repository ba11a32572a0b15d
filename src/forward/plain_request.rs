//! A request that was refused with the fields that Tracewire added is sent again as the agent sent it: the agent gets the
//! response that it would have got. If that succeeds, the fields that the refusal named are not added again.

use super::exchange_start::ActiveExchange;
use super::forwarder::Forwarder;
use crate::capture::EditedBytes;
use crate::error::ProxyError;
use crate::llm::token_ids::rejected_fields;
use crate::tls::Offer;
use crate::trace::exchange::{Injection, Withheld};
use crate::upstream::{Origin, Sent, body};
use http::Request;
use http::request::Parts;
use http_body_util::{BodyExt, Limited};

/// A request without the fields that were added to it.
pub(super) struct PlainRequest {
    pub(super) parts: Parts,
    pub(super) body: EditedBytes,
    /// The names of what was added.
    pub(super) added: Vec<&'static str>,
}

impl Forwarder {
    /// Sends a request again without what was added to it. `refused`: the response to the first try.
    pub(super) async fn send_plain(
        &self,
        exchange: &ActiveExchange,
        origin: &Origin,
        offer: Offer,
        refused: Sent,
        plain: PlainRequest,
    ) -> Result<Sent, ProxyError> {
        let status = refused.response.status().as_u16();
        let error = Limited::new(refused.response.into_body(), MAX_ERROR_BYTES).collect().await;
        let error = error.map(|error| error.to_bytes()).unwrap_or_default();
        drop(refused.lease);
        let request = Request::from_parts(plain.parts, body::boxed(plain.body.body()));
        let sent = self.upstream.send(request, &exchange.pool_key(), origin, offer).await?;
        exchange.recording.injected(Injection::withheld(Some(Withheld::Rejected)));
        if sent.response.status().is_success() {
            let rejected = rejected_fields(status, &error, &plain.added);
            self.engines.rejected(&origin.host, origin.port, &rejected);
        }
        Ok(sent)
    }
}

const MAX_ERROR_BYTES: usize = 64 * 1024;

//! A webhook for each ended rollout: signed as Standard Webhooks describes, so that receivers have libraries that verify it.

use super::http::{Poster, Reply};
use super::outcome::{DropReason, Fault, Outcome};
use super::reader::{Destination, Page, Prepared};
use crate::export::sample::{AttemptSample, SampleOptions};
use crate::store::{Result, RolloutFilter, SharedStore, StoreExt};
use crate::trace::{AttemptedRollout, RolloutId, Timestamp};
use crate::trajectory::{VerdictSettings, final_reward};
use crate::util::secret::Secret;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A receiver of the ends of rollouts.
pub(super) struct Webhook {
    pub(super) store: SharedStore,
    pub(super) poster: Poster,
    /// `None`: the requests are not signed.
    pub(super) key: Option<SigningKey>,
    /// When a rollout is sound.
    pub(super) verdict: VerdictSettings,
    /// How long after its end a rollout is read: its last spans may not be stored yet.
    pub(super) delay: Duration,
}

/// An entry of the log of ended rollouts.
pub(super) struct EndedRollout {
    position: u64,
    rollout_id: RolloutId,
}

/// A request, the same for each try.
#[derive(Clone)]
pub(super) struct Event {
    id: String,
    body: Bytes,
}

impl Destination for Webhook {
    type Item = EndedRollout;
    type Request = Event;

    async fn newest(&self) -> Result<u64> {
        Ok(self.store.ended_rollouts(0, 0).await?.total)
    }

    async fn page(&self, after: u64) -> Result<Page<EndedRollout>> {
        let ended = self.store.ended_rollouts(after, 1).await?;
        let positions: Vec<u64> = (after + 1..).take(ended.ids.len()).collect();
        let entry = |(rollout_id, position): (RolloutId, &u64)| EndedRollout { position: *position, rollout_id };
        let items = ended.ids.into_iter().zip(&positions).map(entry).collect();
        let through = positions.last().copied().unwrap_or(after);
        Ok(Page { items: Arc::new(items), positions, through, removed: 0, newest: ended.total })
    }

    async fn prepare(&self, items: Arc<Vec<EndedRollout>>, part: Range<usize>) -> Result<Prepared<Event>> {
        let Some(ended) = items.get(part.start) else { return Ok(Prepared::Nothing(DropReason::Encoding)) };
        let filter = RolloutFilter::of_ids(vec![ended.rollout_id.clone()]);
        let found = self.store.attempted_rollouts(filter).await?.into_iter().next();
        let Some(found) = found else { return Ok(Prepared::Nothing(DropReason::Removed)) };
        if let Some(end) = found.rollout.end_time {
            let since = Timestamp::from(SystemTime::now()).since(end);
            tokio::time::sleep(self.delay.saturating_sub(since)).await;
        }
        let body = self.body(found).await?;
        Ok(Prepared::Request(Event { id: format!("{}-{}", ended.rollout_id, ended.position), body }))
    }

    async fn post(&self, event: Event) -> Outcome {
        let Event { id, body } = event;
        let headers = signed_headers(self.key.as_ref(), &id, SystemTime::now().into(), &body);
        outcome(self.poster.post(body, headers).await)
    }
}

impl Webhook {
    async fn body(&self, found: AttemptedRollout) -> Result<Bytes> {
        let AttemptedRollout { rollout, attempt } = found;
        let id = rollout.rollout_id.clone();
        let counts = self.store.rollout_counts(vec![id.clone()]).await?.remove(&id).unwrap_or_default();
        let spans = self.store.spans(id, attempt.as_ref().map(|attempt| attempt.attempt_id.clone())).await?;
        let options = SampleOptions { verdict: self.verdict.clone(), ..SampleOptions::default() };
        let make = move || {
            let sample = AttemptSample::of(rollout, attempt.as_ref(), &spans, &options);
            json!({
                "type": "rollout.ended",
                "rollout_id": sample.rollout.rollout_id,
                "attempt_id": sample.attempt_id,
                "status": sample.rollout.status,
                "mode": sample.rollout.mode,
                "metadata": sample.rollout.metadata,
                "start_time": sample.rollout.start_time,
                "end_time": sample.rollout.end_time,
                "counts": counts,
                "reward": final_reward(&sample.record.rewards).map(|reward| reward.value),
                "rewards": sample.record.rewards,
                "verdict": { "sound": sample.verdict.is_sound(), "reasons": sample.verdict.reasons },
            })
        };
        // Trees of many calls take their time.
        Ok(Bytes::from(tokio::task::block_in_place(make).to_string()))
    }
}

/// Keys the signatures of a webhook.
pub(super) struct SigningKey(hmac::Key);

impl SigningKey {
    /// The key of a secret: text, or `whsec_` with base64. `None` without a secret.
    pub(super) fn new(secret: &Secret) -> Option<Self> {
        let text = secret.expose();
        let decoded = text.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
        let bytes = decoded.unwrap_or_else(|| text.as_bytes().to_vec());
        (!bytes.is_empty()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// `v1,` and the HMAC-SHA256 of `ID.TIMESTAMP.BODY` in base64.
    fn signature(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        format!("v1,{}", STANDARD.encode(hmac::sign(&self.0, &signed)))
    }
}

fn signed_headers(key: Option<&SigningKey>, id: &str, now: Timestamp, body: &[u8]) -> HeaderMap {
    let timestamp = (now.unix_nanos / NANOS_PER_SECOND).to_string();
    let signature = key.map(|key| key.signature(id, &timestamp, body));
    let fields =
        [("webhook-id", Some(id.to_owned())), ("webhook-timestamp", Some(timestamp)), ("webhook-signature", signature)];
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    for (name, value) in fields {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// What a receiver of webhooks says by its status code.
fn outcome(reply: Reply) -> Outcome {
    let response = match reply {
        Reply::Failed(cause) => return Outcome::Later { after: None, cause, fault: Fault::Receiver },
        Reply::Response(response) => response,
    };
    let (status, after) = (response.status, response.retry_after());
    let cause = response.cause();
    match status {
        _ if status.is_success() => Outcome::Accepted { rejected: 0, message: String::new() },
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome::Later { after, cause, fault: Fault::Receiver },
        _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            Outcome::Later { after, cause, fault: Fault::Request }
        }
        _ => Outcome::Refused { reason: DropReason::Status(status.as_u16()), cause },
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Standard Webhooks.
    #[test]
    fn a_signature_is_that_of_the_standard() {
        let key = SigningKey::new(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = key.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(SigningKey::new(&Secret::default()).is_none());
    }
}

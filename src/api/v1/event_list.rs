//! A listing of events: one pass over the spans without their long content finds them, and a second makes them one by one.

use crate::api::respond::ApiResult;
use crate::api::settings::TripletCalls;
use crate::api::streamed::{BodySource, JsonList};
use crate::export::model_request::event_data;
use crate::export::triplet::{CallTriplet, PROMPT_CONTENT, TRIPLET_CONTENT, triplet};
use crate::llm::recorded::is_llm_call;
use crate::store::{SharedStore, SpanContent, SpanPages, SpanPlace, SpanQuery};
use crate::trace::number_lists::with_whole_texts;
use crate::trace::semconv as names;
use crate::trace::{AttemptId, RolloutId, Span, Timestamp, Value};
use serde::Serialize;
use serde_json::{Value as JsonValue, json};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use tokio::task::block_in_place;
use utoipa::ToSchema;

/// An event as this API returns it.
#[derive(Serialize, ToSchema)]
pub(super) struct EventView<'a> {
    pub(super) event_type: String,
    pub(super) rollout_id: String,
    pub(super) attempt_id: String,
    pub(super) timestamp: Timestamp,
    #[schema(value_type = Object)]
    pub(super) data: EventData<'a>,
}

/// The data of an event.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum EventData<'a> {
    Json(JsonValue),
    Call(CallTriplet<'a>),
}

impl EventData<'_> {
    /// A hash of the prompt's token ids.
    fn prompt_hash(&self, hasher: &RandomState) -> u64 {
        let json = match self {
            Self::Json(data) | Self::Call(CallTriplet::Json(data)) => &data["prompt_token_ids"],
            Self::Call(CallTriplet::Typed(call)) => return hasher.hash_one(&*call.prompt_token_ids),
        };
        let ids = json.as_array().and_then(|ids| ids.iter().map(JsonValue::as_i64).collect::<Option<Vec<i64>>>());
        ids.map_or_else(|| hasher.hash_one(json.to_string()), |ids| hasher.hash_one(&*ids))
    }
}

/// The data that a listing has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EventFormat {
    /// Requests and responses of LLM calls.
    Whole,
    /// Token ids of LLM calls.
    Triplets(TripletCalls),
}

/// The events of an attempt, by end time.
pub(super) struct EventList {
    rollout: RolloutId,
    pages: SpanPages,
    /// Events that were not read yet.
    left: usize,
    format: EventFormat,
    list: JsonList,
    is_finished: bool,
}

impl EventList {
    /// The events of one type, or of all.
    pub(super) async fn find(
        store: &SharedStore,
        rollout: RolloutId,
        attempt: AttemptId,
        event_type: Option<String>,
        format: EventFormat,
    ) -> ApiResult<Self> {
        let content = SpanContent::Outline(&[names::EVENT_TYPE]);
        let query = SpanQuery { attempt_id: Some(attempt), content, ..SpanQuery::of_rollout(rollout.clone()) };
        let mut pages = SpanPages::new(store, query);
        let mut found: Vec<(Timestamp, SpanPlace)> = Vec::new();
        while let Some(page) = pages.next().await? {
            let is_wanted = |kind: &str| event_type.as_ref().is_none_or(|wanted| wanted == kind);
            let event = |(place, span): &(SpanPlace, Span)| {
                kind_of(span).filter(|(_, kind)| is_wanted(kind)).map(|(time, _)| (time, *place))
            };
            found.extend(page.iter().filter_map(event));
        }
        found.sort_by_key(|(time, _)| *time);
        let mut places: Vec<SpanPlace> = found.into_iter().map(|(_, place)| place).collect();
        if format == EventFormat::Triplets(TripletCalls::Last) {
            keep_last_of_each_prompt(store, &rollout, &mut places).await?;
        }
        let content = match format {
            EventFormat::Whole => SpanContent::Whole,
            EventFormat::Triplets(_) => SpanContent::OutlineWithLists(TRIPLET_CONTENT),
        };
        let left = places.len();
        let pages = SpanPages::at(store, rollout.clone(), places, content);
        Ok(Self { rollout, pages, left, format, list: JsonList::default(), is_finished: false })
    }
}

impl BodySource for EventList {
    async fn next(&mut self) -> ApiResult<Option<Vec<u8>>> {
        if self.is_finished {
            return Ok(None);
        }
        let Some(page) = self.pages.next().await? else {
            self.is_finished = true;
            if self.left > 0 {
                let (rollout_id, missing) = (&self.rollout, self.left);
                tracing::warn!(%rollout_id, missing, "a listing lacks events that were removed while it was sent");
            }
            return Ok(Some(self.list.finish("")));
        };
        self.left = self.left.saturating_sub(page.len());
        block_in_place(|| {
            for (_, span) in &page {
                let Some((timestamp, event_type)) = kind_of(span) else { continue };
                let data = data_of(span, &event_type, self.format);
                let (rollout_id, attempt_id) = (span.rollout_id.to_string(), span.attempt_id.to_string());
                let event_type = event_type.into_owned();
                self.list.add(&EventView { event_type, rollout_id, attempt_id, timestamp, data })?;
            }
            Ok(Some(self.list.take()))
        })
    }
}

/// Removes all calls with one prompt but the last.
async fn keep_last_of_each_prompt(
    store: &SharedStore,
    rollout: &RolloutId,
    places: &mut Vec<SpanPlace>,
) -> ApiResult<()> {
    let hasher = RandomState::new();
    let mut last: HashMap<u64, SpanPlace> = HashMap::new();
    let mut replaced = HashSet::new();
    let content = SpanContent::OutlineWithLists(PROMPT_CONTENT);
    let mut pages = SpanPages::at(store, rollout.clone(), places.clone(), content);
    while let Some(page) = pages.next().await? {
        block_in_place(|| {
            for (place, span) in &page {
                if kind_of(span).is_some_and(|(_, kind)| kind == MODEL_REQUEST) {
                    let data = data_of(span, MODEL_REQUEST, EventFormat::Triplets(TripletCalls::Last));
                    replaced.extend(last.insert(data.prompt_hash(&hasher), *place));
                }
            }
        });
    }
    places.retain(|place| !replaced.contains(place));
    Ok(())
}

/// The time and type of the event that a span represents; `None` for other spans. Outlines suffice.
fn kind_of(span: &Span) -> Option<(Timestamp, Cow<'_, str>)> {
    let at = span.end_time?;
    if let Some(event_type) = span.attributes.get(names::EVENT_TYPE).and_then(Value::as_str) {
        return Some((at, event_type.into()));
    }
    if is_llm_call(span) {
        return Some((at, MODEL_REQUEST.into()));
    }
    span.attributes.get(REWARD).and_then(Value::as_float).map(|_| (at, "reward".into()))
}

/// The data of the event that a span represents.
fn data_of<'a>(span: &'a Span, event_type: &str, format: EventFormat) -> EventData<'a> {
    let is_posted = span.attributes.contains_key(names::EVENT_TYPE);
    if !is_posted && is_llm_call(span) {
        return match format {
            EventFormat::Whole => EventData::Json(event_data(span)),
            EventFormat::Triplets(_) => EventData::Call(CallTriplet::of(span)),
        };
    }
    let data = if is_posted {
        let span = with_whole_texts(span);
        let data = span.attributes.get(names::EVENT_DATA).and_then(Value::as_str).unwrap_or("{}");
        serde_json::from_str(data).unwrap_or_default()
    } else {
        json!({ "value": span.attributes.get(REWARD).and_then(Value::as_float), "source": "agent" })
    };
    EventData::Json(match format {
        EventFormat::Whole => data,
        EventFormat::Triplets(_) => triplet(event_type, &data),
    })
}

/// The type of the events that stand for LLM calls.
const MODEL_REQUEST: &str = "model_request";
/// The attribute of a reward.
pub(super) const REWARD: &str = "agentlightning.reward.0.value";

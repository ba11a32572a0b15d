//! Reads the record back through the REST API, one rollout at a time, and compares it with what the endpoint sent.

use super::check::{Attributes, SpanCheck};
use super::load::rollout_id;
use super::plan::Plan;
use crate::service::Client;
use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What the spans of all calls are like.
#[derive(Debug, Default)]
pub struct Record {
    /// Calls with a span.
    pub found: u64,
    /// Calls with the status `exact`.
    pub exact: u64,
    /// Calls with the ids that the endpoint sent.
    pub ids_equal: u64,
    /// Calls with the log-probabilities that the endpoint sent.
    pub logprobs_equal: u64,
    /// What is wrong with the others, and how many spans say so.
    pub reasons: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Span>,
}

#[derive(Deserialize)]
struct Span {
    attributes: Attributes,
}

/// Reads the spans of all calls.
pub async fn read(server: SocketAddr, plan: Plan) -> Result<Record> {
    let mut record = Record::default();
    let mut client = Client::connect(server).await?;
    for rollout in 0..plan.rollouts {
        let path = format!("/v1/agl/spans?rollout_id={}", rollout_id(rollout));
        let answer = client.send(Method::GET, &path, "application/json", Bytes::new()).await?;
        let page: Page = serde_json::from_slice(&answer).with_context(|| format!("the spans of {path}"))?;
        // A call counts once, however many spans it has.
        let mut checked: BTreeMap<u64, SpanCheck> = BTreeMap::new();
        for span in &page.items {
            if let Some(call) = span.attributes.call(plan).filter(|call| call.rollout == rollout) {
                checked.entry(call.turn).or_insert_with(|| span.attributes.check(call));
            }
            if let Some(limit) = &span.attributes.response_truncated {
                *record.reasons.entry(format!("the record is cut short: {limit}")).or_default() += 1;
            }
        }
        checked.into_values().for_each(|check| record.add(check));
    }
    Ok(record)
}

impl Record {
    fn add(&mut self, check: SpanCheck) {
        self.found += 1;
        self.exact += u64::from(check.is_exact);
        self.ids_equal += u64::from(check.ids_equal);
        self.logprobs_equal += u64::from(check.logprobs_equal);
        if let Some(why) = check.why {
            *self.reasons.entry(why).or_default() += 1;
        }
    }
}

//! The long calls, all rollouts at once and the turns of each one after the other. Every response is checked.

use super::answer::{length, request};
use super::check::{Expected, ResponseCheck};
use super::plan::{Ids, Order, Plan};
use crate::client::{Client, Seen, Way};
use crate::drive::{Load, connections_of, gather};
use anyhow::{Result, bail};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::convert::Infallible;
use std::time::Instant;
use tokio::task::JoinSet;

/// Makes all calls of a plan. Connections are made before the clock starts.
pub async fn run(way: &Way, plan: Plan, expected: Expected) -> Result<Load> {
    let clients = connections_of(way, (0..plan.rollouts).map(rollout_id)).await?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (rollout, mut client) in clients {
        let way = way.clone();
        tasks.spawn(async move {
            let mut load = Load::default();
            for turn in 0..plan.turns {
                let ids = if expected == Expected::Same { Ids::Always } else { Ids::OnRequest };
                let order = Order { call: plan.call(number_of(&rollout), turn), ids };
                let started = Instant::now();
                let result = exchange(&way, &mut client, order, expected).await;
                let failed = result.is_err();
                load.note(result, started);
                if failed {
                    match way.connect_as(false, &rollout).await {
                        Ok(new) => client = new,
                        Err(_) => break,
                    }
                }
            }
            // What a connection that can't be made leaves undone.
            load.errors += plan.turns - load.errors - load.latencies_us.len() as u64;
            load
        });
    }
    Ok(gather(tasks, began).await)
}

async fn exchange(way: &Way, client: &mut Client, order: Order, expected: Expected) -> Result<Seen> {
    let length = length(request(order));
    let pieces = stream::iter(request(order).map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    let response = client.call(way.target, length, BodyExt::boxed(StreamBody::new(pieces))).await?;
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let text = body.collect().await?.to_bytes();
        bail!("status {status}: {}", String::from_utf8_lossy(&text).chars().take(200).collect::<String>());
    }
    let mut seen = Seen { bytes: length, ..Seen::default() };
    let mut check = ResponseCheck::new(order.call, expected);
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        seen.bytes += data.len() as u64;
        check.push(data)?;
    }
    check.finish()?;
    Ok(seen)
}

/// What a rollout is called.
pub fn rollout_id(number: u64) -> String {
    format!("{PREFIX}{number}")
}

fn number_of(rollout: &str) -> u64 {
    rollout.strip_prefix(PREFIX).and_then(|number| number.parse().ok()).unwrap_or(0)
}

const PREFIX: &str = "ro-long-";

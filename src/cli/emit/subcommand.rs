//! Runs `emit`.

use super::args::{Emission, EmitArgs, NamedReward, SpanOutcome};
use super::destination::Destination;
use super::emitted::{PRIMARY, emitted_span};
use crate::cli::show;
use crate::trace::{Span, SpanId, StatusCode, Timestamp};
use crate::tracer::emit::spans;
use crate::tracer::{Exception, NewSpan};
use anyhow::{Context, Result};
use serde_json::Value as JsonValue;
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

/// Runs the subcommand. It prints the id of the span.
pub(crate) async fn run(args: EmitArgs) -> Result<ExitCode> {
    let (new, duration) = new_span(args.emission)?;
    let mut target = args.target;
    let mut new = new.tags(std::mem::take(&mut target.tags)).attributes(target.attributes.take().unwrap_or_default());
    if let Some(subject) = target.about.take() {
        new = new.about(subject.key, subject.value);
    }
    let destination = Destination::of(target)?;
    let mut span = emitted_span(&destination.rollout, &destination.attempt, new);
    span.parent_id = Some(SpanId::of_attempt_root(&span.rollout_id, &span.attempt_id).to_string());
    span.start_time = span.start_time.map(|end| start_of(end, duration));
    let (id, rollout) = (span.span_id.clone(), destination.rollout.clone());
    store(destination, span).await.with_context(|| format!("cannot store the span of rollout {rollout}"))?;
    show::out(format!("{id}\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn store(destination: Destination, span: Span) -> Result<()> {
    Box::pin(destination.store(span)).await
}

/// The span of an emission, and how long before now it started.
fn new_span(emission: Emission) -> Result<(NewSpan, Duration)> {
    let now = |span| Ok((span, Duration::ZERO));
    match emission {
        Emission::Reward { rewards } => {
            let named = rewards
                .into_iter()
                .map(|NamedReward { name, value }| (name.unwrap_or_else(|| PRIMARY.to_owned()), value));
            now(spans::rewards(named)?)
        }
        Emission::Message { text } => now(spans::message(&text)),
        Emission::Object { json } => now(spans::object(&parsed(json)?)),
        Emission::Annotation { json } => now(spans::annotation(&parsed(json)?)?),
        Emission::Exception { message, type_name, stacktrace } => {
            now(spans::exception(&Exception { type_name, message, stacktrace }))
        }
        Emission::Span { name, duration, status } => {
            let status = match status {
                SpanOutcome::Unset => StatusCode::Unset,
                SpanOutcome::Ok => StatusCode::Ok,
                SpanOutcome::Error => StatusCode::Error,
            };
            Ok((NewSpan::new(name).status(status), duration.unwrap_or_default()))
        }
    }
}

fn parsed(json: String) -> Result<JsonValue> {
    let mut text = json;
    if text == "-" {
        text.clear();
        let stdin = std::io::stdin().lock();
        stdin.take(MAX_STDIN_BYTES).read_to_string(&mut text).context("cannot read stdin")?;
    }
    serde_json::from_str(&text).context("the value is not valid JSON; a text needs quotes: '\"text\"'")
}

fn start_of(end: Timestamp, duration: Duration) -> Timestamp {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Timestamp::from_unix_nanos(end.unix_nanos.saturating_sub(nanos))
}

const MAX_STDIN_BYTES: u64 = 64 * 1024 * 1024;

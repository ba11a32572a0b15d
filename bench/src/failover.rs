//! Two backends, calls of all rollouts on both, and the end of one of them in the middle.

use crate::client::Ask;
use crate::drive::{self, Load};
use crate::gateway::{calls, endpoint};
use crate::gateways::Who;
use anyhow::Result;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// What came of it.
pub struct Failover {
    json: Load,
    streams: Load,
    /// Of each backend until one was killed.
    before: [u64; 2],
    /// Of the other one since.
    after: u64,
}

impl Failover {
    /// Calls that failed, and whose answer had not begun.
    pub fn failed(&self) -> u64 {
        self.json.errors + self.streams.errors - self.json.cut - self.streams.cut
    }
}

/// Calls through `who`, whole answers and streams, and kills a backend after half the time.
pub async fn run(who: &Who, place: &Path, lasting: Duration) -> Result<Failover> {
    let (first, second) = (endpoint()?, endpoint()?);
    let (one, other) = (first.address, second.address);
    let gateway = who.start(&[one, other], place).await?;
    drive::at_once(&gateway.way, &Ask::Json, CALLERS).await?;
    let killed = async {
        tokio::time::sleep(lasting / 2).await;
        let before = [calls(one).await?, calls(other).await?];
        // SIGKILL.
        drop(first);
        anyhow::Ok(before)
    };
    let slow = Ask::Later { ms: 50 };
    let stream = Ask::Sse { chunks: 20, interval_ms: 25 };
    let (json, streams, before) = tokio::join!(
        drive::closed_loop(&gateway.way, &slow, CALLERS, lasting),
        drive::closed_loop(&gateway.way, &stream, CALLERS, lasting),
        killed
    );
    let (json, streams, before) = (json?, streams?, before?);
    for load in [&json, &streams] {
        if let Some(why) = &load.why {
            eprintln!("{} failed, {} of them after their beginning, the first: {why}", load.errors, load.cut);
        }
    }
    Ok(Failover { json, streams, before, after: calls(other).await?.saturating_sub(before[1]) })
}

/// Markdown, two rows a round.
pub fn table(failovers: &[Failover]) -> String {
    let mut text = String::new();
    if failovers.is_empty() {
        return text;
    }
    text.push_str("\n### failover\n\n| | whole | failed before they began | cut after | p50 ms | longest ms | calls of each backend before, of the other since |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|---|\n");
    for failover in failovers {
        let [one, other] = failover.before;
        let spread = format!("{one} and {other}, {}", failover.after);
        for (name, load) in [("JSON", &failover.json), ("streams", &failover.streams)] {
            let mut latencies = load.latencies_us.clone();
            latencies.sort_unstable();
            let ms = |at: usize| latencies.get(at).copied().unwrap_or(0) as f64 / 1e3;
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {:.1} | {:.1} | {spread} |",
                latencies.len(),
                load.errors - load.cut,
                load.cut,
                ms(latencies.len() / 2),
                ms(latencies.len().saturating_sub(1))
            );
        }
    }
    text
}

/// Connections with JSON calls, and as many with streams.
const CALLERS: usize = 32;

//! An export of metrics over OTLP: all of them, from time to time.
//!
//! Values are sums since the start of the program, so that a request that is not accepted loses nothing: the next one has
//! its values too.

use super::counters::ExportCounters;
use super::delivery::Phase;
use super::otlp_client::OtlpClient;
use super::outcome::{DropReason, Outcome};
use crate::trace::Timestamp;
use crate::trace::metric::Histogram;
use crate::wire::otlp::encoded_metrics;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// Reads the metrics of this program.
pub(crate) type MetricsReader = Arc<dyn Fn() -> Vec<Histogram> + Send + Sync>;

/// An export of metrics, with its counts.
pub(super) struct MetricsExport {
    pub(super) client: OtlpClient,
    pub(super) read: MetricsReader,
    pub(super) counters: Arc<ExportCounters>,
    pub(super) interval: Duration,
    /// Tells this program from others.
    pub(super) instance: String,
    pub(super) phase: watch::Receiver<Phase>,
}

impl MetricsExport {
    /// Sends the metrics after each interval, and when the program ends.
    pub(super) async fn run(self) {
        let mut pause = self.interval;
        loop {
            let mut phase = self.phase.clone();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                ended = phase.wait_for(|phase| *phase != Phase::Running) => if ended.is_err() { return },
            }
            // A receiver may ask for a longer pause.
            pause = self.interval.max(self.send().await);
            if *self.phase.borrow() != Phase::Running {
                return;
            }
        }
    }

    /// Sends the metrics once. Returns the pause that the receiver asks for.
    async fn send(&self) -> Duration {
        let histograms = (self.read)();
        let points: u64 = histograms.iter().map(|histogram| histogram.points.len() as u64).sum();
        if points == 0 {
            return Duration::ZERO;
        }
        let Some(body) = self.body(histograms).await else {
            self.counters.add_dropped(DropReason::Encoding, points);
            return Duration::ZERO;
        };
        match self.client.post(body).await {
            Outcome::Accepted { rejected, message } => {
                let rejected = rejected.min(points);
                self.counters.add_sent(points - rejected);
                self.counters.add_dropped(DropReason::Rejected, rejected);
                match rejected {
                    0 => self.counters.recover(),
                    _ => self.counters.fail(format!("the receiver rejects some for what they contain: {message}")),
                }
            }
            Outcome::Later { after, cause, .. } => {
                self.counters.fail(cause);
                return after.unwrap_or_default();
            }
            Outcome::TooLarge => {
                self.counters.add_dropped(DropReason::TooLarge, points);
                self.counters.fail("the metrics are too large for the receiver".to_owned());
            }
            Outcome::Refused { reason, cause } => {
                self.counters.add_dropped(reason, points);
                self.counters.fail(cause);
            }
        }
        Duration::ZERO
    }

    async fn body(&self, histograms: Vec<Histogram>) -> Option<Bytes> {
        let (encoding, instance) = (self.client.encoding(), self.instance.clone());
        let encode = move || {
            let now = Timestamp::from(SystemTime::now());
            encoding.body(encoded_metrics(encoding.format(), &histograms, now, &instance).ok()?)
        };
        tokio::task::spawn_blocking(encode).await.ok().flatten()
    }
}

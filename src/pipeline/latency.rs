//! How long exchanges take, as histograms for `/metrics`.
//!
//! The pipeline observes them when it turns an exchange into a span: measuring costs the traffic nothing.

use crate::trace::exchange::Timing;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::time::Duration;

/// The latency histograms, in seconds. Clones share their values.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    /// From the head of the request to the end of the response.
    pub exchange: Histogram,
    /// From the head of the request to the first byte of the response body; responses without a body are not in it.
    pub first_chunk: Histogram,
    /// From the end of an exchange until the pipeline takes it from the capture queue.
    pub queue: Histogram,
    /// One append of spans to the store, successful or not.
    pub store: Histogram,
}

impl Default for Latencies {
    fn default() -> Self {
        // 1 ms to 524 s: from a cached answer to a long generation.
        let of_exchanges = || Histogram::new(exponential_buckets(0.001, 2.0, 20));
        // 0.1 ms to 1.6 s: a commit takes about a millisecond.
        let of_steps = || Histogram::new(exponential_buckets(0.0001, 2.0, 15));
        Self { exchange: of_exchanges(), first_chunk: of_exchanges(), queue: of_steps(), store: of_steps() }
    }
}

impl Latencies {
    /// An exchange has reached the pipeline, `queued` after its end.
    pub(super) fn exchange_received(&self, timing: &Timing, queued: Duration) {
        self.exchange.observe(timing.ended.as_secs_f64());
        if let Some(first) = timing.first_body_byte {
            self.first_chunk.observe(first.as_secs_f64());
        }
        self.queue.observe(queued.as_secs_f64());
    }
}

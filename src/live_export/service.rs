//! The live exports of a program.

use super::counters::ExportCounters;
use super::cursor::{Cursor, ExportStart};
use super::delivery::{Delivery, Phase};
use super::endpoint::Endpoint;
use super::http::Poster;
use super::json_lines::{JsonLines, JsonLinesError, JsonLinesPlace};
use super::metrics::{MetricsExport, MetricsReader};
use super::otlp::OtlpReceiver;
use super::otlp_client::OtlpClient;
use super::otlp_settings::{OtlpSettings, Signal};
use super::reader::Destination;
use super::settings::ExportSettings;
use super::settings_error::ExportSettingsError;
use super::webhook::{SigningKey, Webhook};
use crate::net::task::spawn;
use crate::store::SharedStore;
use crate::tls::{Offer, TlsError};
use crate::trajectory::VerdictSettings;
use crate::upstream::Upstream;
use http::HeaderMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The exports that run, until [`Self::finish`].
pub(crate) struct LiveExports {
    phase: watch::Sender<Phase>,
    tasks: Vec<JoinHandle<()>>,
    /// Of `--emit`. It may wait for a reader that never comes.
    lines: Option<JoinHandle<()>>,
    counters: Vec<Arc<ExportCounters>>,
}

/// Why an export can't start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// A setting that can't be used.
    #[error(transparent)]
    Settings(#[from] ExportSettingsError),
    /// The file of root certificates.
    #[error("the export {name}: {cause}")]
    Certificate {
        /// Name of the export.
        name: String,
        /// What is wrong with it.
        cause: TlsError,
    },
}

impl LiveExports {
    /// Starts the exports of the settings; `verdict` says what is a sound rollout. `metrics` reads the program's own.
    /// `upstream` makes the connections, with a file of further root certificates.
    pub(crate) async fn start(
        settings: &ExportSettings,
        verdict: &VerdictSettings,
        store: &SharedStore,
        metrics: &MetricsReader,
        upstream: &(dyn Fn(Option<&Path>) -> Result<Upstream, TlsError> + Sync),
    ) -> Result<Self, ExportError> {
        let (phase, _) = watch::channel(Phase::Running);
        let mut exports = Self { phase, tasks: Vec::new(), lines: None, counters: Vec::new() };
        let connect = |name: &str, certificate: Option<&Path>| {
            upstream(certificate).map_err(|cause| ExportError::Certificate { name: name.to_owned(), cause })
        };
        for entry in &settings.otlp {
            let upstream = connect(entry.shown_name(), entry.certificate.as_deref())?;
            if entry.sends(Signal::Traces) {
                let client = OtlpClient::new(entry, Signal::Traces, upstream.clone())?;
                let (store_of_export, max_batch_spans) = (Arc::clone(store), entry.max_batch_spans);
                let receiver =
                    OtlpReceiver { store: store_of_export, client, attributes: entry.attributes, max_batch_spans };
                exports.deliver(entry.shown_name(), store, receiver, entry.interval, entry.start).await;
            }
            if entry.sends(Signal::Metrics) {
                let client = OtlpClient::new(entry, Signal::Metrics, upstream)?;
                exports.send_metrics(entry, client, Arc::clone(metrics));
            }
        }
        for entry in &settings.webhook {
            let upstream = connect(entry.shown_name(), None)?;
            let poster = poster(&entry.url, entry.timeout, upstream)?;
            let key = SigningKey::new(&entry.secret);
            let (store, verdict, delay) = (Arc::clone(store), verdict.clone(), entry.delay);
            let receiver = Webhook { store: Arc::clone(&store), poster, key, verdict, delay };
            exports.deliver(entry.shown_name(), &store, receiver, WEBHOOK_INTERVAL, entry.start).await;
        }
        Ok(exports)
    }

    /// Writes each span that is stored from now on as a line of JSON.
    pub(crate) async fn emit(&mut self, place: &JsonLinesPlace, store: &SharedStore) -> Result<(), JsonLinesError> {
        let lines = JsonLines::open(place, Arc::clone(store), self.phase.subscribe()).await?;
        let running = spawn(lines.run());
        self.lines = Some(tokio::spawn(async move { drop(running.await) }));
        Ok(())
    }

    /// The counts of each export.
    pub(crate) fn counters(&self) -> Vec<Arc<ExportCounters>> {
        self.counters.clone()
    }

    /// Sends what is stored already, for at most [`FLUSH_TIMEOUT`] and the request in flight. What is left then, or is not
    /// accepted at once, is sent by the next program that opens the store with the same exports.
    pub(crate) async fn finish(self) {
        self.phase.send_replace(Phase::Flushing);
        let all = async {
            for task in self.tasks {
                // The panic of a task is counted where it was caught.
                let _ = task.await;
            }
        };
        tokio::pin!(all);
        if tokio::time::timeout(FLUSH_TIMEOUT, &mut all).await.is_err() {
            self.phase.send_replace(Phase::Ended);
            all.await;
        }
        self.counters.iter().for_each(|counters| counters.log_failure());
        if let Some(mut lines) = self.lines
            && tokio::time::timeout(FLUSH_TIMEOUT, &mut lines).await.is_err()
        {
            lines.abort();
            tracing::error!("the last spans are not written as lines (--emit): nothing reads them");
        }
    }

    fn send_metrics(&mut self, entry: &OtlpSettings, client: OtlpClient, read: MetricsReader) {
        let counters = Arc::new(ExportCounters::new(&entry.metrics_name()));
        self.counters.push(Arc::clone(&counters));
        let instance = format!("{:016x}", fastrand::u64(..));
        let (interval, phase) = (entry.metrics_interval, self.phase.subscribe());
        let running = spawn(MetricsExport { client, read, counters, interval, instance, phase }.run());
        self.tasks.push(tokio::spawn(async move { drop(running.await) }));
    }

    async fn deliver<D: Destination>(
        &mut self,
        name: &str,
        store: &SharedStore,
        destination: D,
        interval: Duration,
        start: ExportStart,
    ) {
        let counters = Arc::new(ExportCounters::new(name));
        self.counters.push(Arc::clone(&counters));
        let (cursor, phase) = (Cursor::new(Arc::clone(store), name), self.phase.subscribe());
        let delivery = Delivery { destination, cursor, counters, interval, start, phase };
        if let Err(error) = delivery.take().await {
            tracing::debug!(%error, export = name, "the cursor of an export can't be read yet");
        }
        let running = spawn(delivery.run());
        self.tasks.push(tokio::spawn(async move { drop(running.await) }));
    }
}

/// Posts to the URL of a webhook.
fn poster(url: &Endpoint, timeout: Duration, upstream: Upstream) -> Result<Poster, ExportSettingsError> {
    let unusable = || ExportSettingsError::Endpoint { text: url.as_str().to_owned() };
    let (origin, uri) = url.origin().zip(url.uri("/")).ok_or_else(unusable)?;
    Ok(Poster { upstream, origin, uri, offer: Offer::Http1, headers: HeaderMap::new(), timeout })
}

/// How often the log of ended rollouts is read.
const WEBHOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a program that ends waits for its exports.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

//! The live exports of a program.

use super::counters::ExportCounters;
use super::cursor::Cursor;
use super::delivery::{Delivery, Phase};
use super::http::Poster;
use super::otlp::OtlpReceiver;
use super::reader::Destination;
use super::settings::{ExportSettings, ExportSettingsError, OtlpSettings};
use crate::net::task::spawn;
use crate::store::SharedStore;
use crate::tls::TlsError;
use crate::upstream::Upstream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The exports that run, until [`Self::finish`].
pub(crate) struct LiveExports {
    phase: watch::Sender<Phase>,
    tasks: Vec<JoinHandle<()>>,
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
    /// Starts the exports of the settings. `upstream` makes the connections, with a file of further root certificates.
    pub(crate) async fn start(
        settings: &ExportSettings,
        store: &SharedStore,
        upstream: &(dyn Fn(Option<&Path>) -> Result<Upstream, TlsError> + Sync),
    ) -> Result<Self, ExportError> {
        let (phase, _) = watch::channel(Phase::Running);
        let mut exports = Self { phase, tasks: Vec::new(), counters: Vec::new() };
        for entry in &settings.otlp {
            let name = entry.shown_name().to_owned();
            let upstream = upstream(entry.certificate.as_deref());
            let upstream = upstream.map_err(|cause| ExportError::Certificate { name: name.clone(), cause })?;
            let receiver = OtlpReceiver::new(Arc::clone(store), poster(entry, upstream)?, entry);
            let counters = Arc::new(ExportCounters::new(&name));
            exports.counters.push(Arc::clone(&counters));
            let cursor = Cursor::new(Arc::clone(store), &name);
            let phase = exports.phase.subscribe();
            let (interval, start) = (entry.interval, entry.start);
            exports.deliver(Delivery { destination: receiver, cursor, counters, interval, start, phase }).await;
        }
        Ok(exports)
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
    }

    async fn deliver<D: Destination>(&mut self, delivery: Delivery<D>) {
        if let Err(error) = delivery.take().await {
            tracing::debug!(%error, export = delivery.counters.name, "the cursor of an export can't be read yet");
        }
        let running = spawn(delivery.run());
        self.tasks.push(tokio::spawn(async move { drop(running.await) }));
    }
}

fn poster(settings: &OtlpSettings, upstream: Upstream) -> Result<Poster, ExportSettingsError> {
    let parsed = settings.endpoint.origin().zip(settings.endpoint.uri("/v1/traces"));
    let text = || settings.endpoint.as_str().to_owned();
    let (origin, uri) = parsed.ok_or_else(|| ExportSettingsError::Endpoint { text: text() })?;
    Ok(Poster { upstream, origin, uri, headers: settings.header_fields()?, timeout: settings.timeout })
}

/// How long a program that ends waits for its exports.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

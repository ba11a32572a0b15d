//! The store in a PostgreSQL server, which several processes share.
//!
//! Plain SQL, no extensions, so that databases which speak its protocol take it too. What another process changes at the
//! same time is waited for, and tried again if the server had to choose. Nothing outside may see an SQL text.

mod append;
mod fault;
mod read;
mod records;
mod schema;
mod terminal;

use super::records::nothing_heard;
use super::{
    Appended, BoxFuture, Change, Pruned, Result, Retention, RolloutFilter, RolloutSummary, SpanObserver, Standing,
    Statistics, Store, StoreError, TerminalPage,
};
use super::{signed, unsigned};
use crate::trace::{
    Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, Timestamp, Worker,
};
use append::Row;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
pub use fault::without_password;
use fault::{cause, fault, server_of};
use read::Read;
use records::Blocking;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// What to keep. `max_bytes` is not known of a server, and not applied.
    pub retention: Retention,
    /// What follows from a span that is stored.
    pub heard: SpanObserver,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { retention: Retention::default(), heard: nothing_heard }
    }
}

/// The store.
pub struct PostgresStore {
    pool: Pool,
    server: String,
    options: PostgresOptions,
    unchecked: AtomicUsize,
}

impl PostgresStore {
    /// Connects to the server that `url` names, and makes its tables if need be. `tls` is used if the URL's `sslmode`
    /// asks for it.
    pub async fn open(url: &str, tls: Arc<ClientConfig>, options: PostgresOptions) -> Result<Self> {
        let mut config: Config = url.parse().map_err(|error: Error| {
            StoreError::Other(format!("{} is no PostgreSQL URL: {}", without_password(url), cause(&error)))
        })?;
        // A server that is gone without a word must be noticed.
        config.tcp_user_timeout(TIMEOUT).keepalives_idle(TIMEOUT).connect_timeout(TIMEOUT);
        let server = server_of(&config);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, MakeRustlsConnect::new((*tls).clone()), recycling);
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .wait_timeout(Some(TIMEOUT))
            .create_timeout(Some(TIMEOUT))
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Other(error.to_string()))?;
        let store = Self { pool, server, options, unchecked: AtomicUsize::new(0) };
        let mut connection = store.connection().await?;
        let newer = schema::migrate(&mut connection).await.map_err(|error| fault(&store.server, &error))?;
        match newer {
            Some(found) => {
                let path = store.server.clone().into();
                Err(StoreError::TooNew { path, found, known: schema::known_version() })
            }
            None => Ok(store),
        }
    }

    async fn connection(&self) -> Result<Object> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Closed => StoreError::Closed,
            PoolError::Backend(error) => StoreError::Unreachable { server: self.server.clone(), cause: cause(&error) },
            other => StoreError::Unreachable { server: self.server.clone(), cause: other.to_string() },
        })
    }

    fn read<'a, T: 'a, F>(&'a self, read: impl FnOnce(Object) -> F + Send + 'a) -> BoxFuture<'a, Result<T>>
    where
        F: Future<Output = Read<T>> + Send + 'a,
    {
        Box::pin(async move {
            let connection = self.connection().await?;
            let done = tokio::time::timeout(MAX_TIMEOUT, read(connection)).await.map_err(|_| self.hangs())?;
            done.map_err(|failure| failure.told(&self.server))
        })
    }

    async fn append_once(&self, rows: &[Row]) -> std::result::Result<Appended, Attempted> {
        let mut connection = self.connection().await.map_err(Attempted::Failed)?;
        let work = async {
            let transaction = connection.transaction().await?;
            let appended = append::append(&transaction, rows, self.options.heard).await?;
            transaction.commit().await?;
            Ok(appended)
        };
        match tokio::time::timeout(MAX_TIMEOUT, work).await {
            Ok(done) => done.map_err(|error: Error| Attempted::of(&self.server, error)),
            Err(_) => {
                // Nobody else must wait on this one.
                drop(Object::take(connection));
                Err(Attempted::Failed(self.hangs()))
            }
        }
    }

    /// Looks at the limits when it is time.
    async fn keep_limits(&self, stored: usize) {
        if self.options.retention == Retention::default() {
            return;
        }
        let unchecked = self.unchecked.fetch_add(stored, Ordering::Relaxed) + stored;
        if unchecked >= SPANS_PER_CHECK {
            self.unchecked.store(0, Ordering::Relaxed);
            if let Err(error) = self.prune().await {
                tracing::warn!(%error, "the store's limits could not be applied; trying again later");
            }
        }
    }

    fn hangs(&self) -> StoreError {
        let cause = format!("no answer within {} s", MAX_TIMEOUT.as_secs());
        StoreError::Unreachable { server: self.server.clone(), cause }
    }

    /// Runs a change on a thread that may block; the change comes back, to be tried again.
    async fn change_once(&self, mut change: Change) -> (Change, std::result::Result<(), Attempted>) {
        let mut connection = match self.connection().await {
            Ok(connection) => connection,
            Err(error) => return (change, Err(Attempted::Failed(error))),
        };
        let (runtime, server) = (Handle::current(), self.server.clone());
        // Kept here in case the thread fails.
        let place: Arc<Mutex<Option<Change>>> = Arc::default();
        let back = Arc::clone(&place);
        let running = tokio::task::spawn_blocking(move || {
            let result = (|| {
                let transaction =
                    runtime.block_on(connection.transaction()).map_err(|error| Attempted::of(&server, error))?;
                let mut records = Blocking::new(runtime.clone(), &transaction);
                let done = change(&mut records);
                if let Some(failure) = records.failure {
                    return Err(Attempted::of(&server, failure));
                }
                done.map_err(Attempted::Failed)?;
                let logged = runtime.block_on(terminal::log(&transaction, &records.ended));
                logged.map_err(|error| Attempted::of(&server, error))?;
                runtime.block_on(transaction.commit()).map_err(|error| Attempted::of(&server, error))
            })();
            *back.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
            result
        });
        let result = running.await.unwrap_or_else(|error| Err(Attempted::Failed(StoreError::Other(error.to_string()))));
        let change = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        (change.unwrap_or_else(|| Box::new(|_| Err(StoreError::Closed))), result)
    }
}

/// Why a transaction did not go through.
enum Attempted {
    /// Somebody else's came between.
    Again(StoreError),
    /// It can't.
    Failed(StoreError),
}

impl Attempted {
    fn of(server: &str, error: Error) -> Self {
        let again = [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE];
        let told = fault(server, &error);
        if error.code().is_some_and(|code| again.contains(code)) { Self::Again(told) } else { Self::Failed(told) }
    }
}

impl Store for PostgresStore {
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>> {
        Box::pin(async move {
            let rows = spans.iter().map(Row::encode).collect::<Result<Vec<_>>>()?;
            if rows.is_empty() {
                return Ok(Appended::default());
            }
            let mut tries = 0;
            loop {
                match self.append_once(&rows).await {
                    Ok(appended) => {
                        self.keep_limits(appended.stored).await;
                        return Ok(appended);
                    }
                    Err(Attempted::Again(_)) if tries < MAX_TRIES => tries += 1,
                    Err(Attempted::Again(error) | Attempted::Failed(error)) => return Err(error),
                }
                tokio::time::sleep(between_tries(tries)).await;
            }
        })
    }

    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>> {
        self.read(async move |connection| read::rollout(&connection, &id).await)
    }

    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>> {
        self.read(async move |connection| read::rollouts(&connection, limit).await)
    }

    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        self.read(async move |connection| read::attempts(&connection, &id).await)
    }

    fn spans(&self, rollout: RolloutId, attempt: Option<AttemptId>) -> BoxFuture<'_, Result<Vec<Span>>> {
        self.read(async move |connection| read::spans(&connection, &rollout, attempt.as_ref()).await)
    }

    fn change(&self, mut change: Change) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut tries = 0;
            loop {
                let (again, result) = self.change_once(change).await;
                change = again;
                match result {
                    Ok(()) => return Ok(()),
                    Err(Attempted::Again(_)) if tries < MAX_TRIES => tries += 1,
                    Err(Attempted::Again(error) | Attempted::Failed(error)) => return Err(error),
                }
                tokio::time::sleep(between_tries(tries)).await;
            }
        })
    }

    fn attempted(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>> {
        self.read(async move |connection| read::attempted(&connection, &filter).await)
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>> {
        self.read(async move |connection| read::all(&connection, "worker").await)
    }

    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>> {
        self.read(async move |connection| read::all(&connection, "resources").await)
    }

    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>> {
        self.read(async move |connection| read::llm_calls(&connection, &rollouts).await)
    }

    fn owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>> {
        self.read(async move |connection| read::owners(&connection, &traces).await)
    }

    fn next_sequence(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Standing>>> {
        self.read(async move |connection| {
            let started = Rollout::running(id.clone(), SystemTime::now().into());
            let sql =
                "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
                 VALUES ($1, FALSE, 1, $2, 'running', FALSE, $3)
                 ON CONFLICT (rollout_id) DO UPDATE SET last_sequence_id = rollout.last_sequence_id + 1
                 RETURNING registered, last_sequence_id";
            let statement = connection.prepare_cached(sql).await?;
            let start = signed(started.start_time.unix_nanos);
            let row = connection.query_one(&statement, &[&id.as_str(), &start, &encode(&started)]).await?;
            Ok(Some(Standing { registered: row.get(0), last_sequence_id: unsigned(row.get(1)) }))
        })
    }

    fn terminal(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<TerminalPage>> {
        self.read(async move |connection| terminal::page(&connection, after, limit).await)
    }

    fn standing(&self, id: RolloutId) -> BoxFuture<'_, Result<Standing>> {
        self.read(async move |connection| read::standing(&connection, &id).await)
    }

    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>> {
        self.read(async move |connection| read::statistics(&connection).await)
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        let retention = self.options.retention;
        self.read(async move |mut connection| {
            let transaction = connection.transaction().await?;
            let now: Timestamp = SystemTime::now().into();
            let before = super::memory::expired_before(retention, now).map(|time| signed(time.unix_nanos));
            let count: i64 = transaction.query_one("SELECT COUNT(*) FROM span", &[]).await?.get(0);
            let excess = signed(super::memory::excess(unsigned(count), retention.max_spans));
            let sql = "WITH gone AS (
                     DELETE FROM span WHERE COALESCE(end_ns, start_ns) < $1
                         OR id IN (SELECT id FROM span ORDER BY id LIMIT $2) RETURNING id
                 ), loose AS (DELETE FROM span_text WHERE span IN (SELECT id FROM gone))
                 SELECT COUNT(*) FROM gone";
            let spans: i64 = transaction.query_one(sql, &[&before, &excess]).await?.get(0);
            if spans > 0 {
                let empty = "DELETE FROM rollout WHERE NOT registered
                     AND NOT EXISTS (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id)";
                transaction.execute(empty, &[]).await?;
                for table in ["attempt", "trace"] {
                    let orphans = format!(
                        "DELETE FROM {table} WHERE NOT EXISTS
                             (SELECT 1 FROM rollout WHERE rollout.rollout_id = {table}.rollout_id)"
                    );
                    transaction.execute(&orphans, &[]).await?;
                }
            }
            transaction.commit().await?;
            Ok(Pruned { spans: unsigned(spans) })
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.pool.close();
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Spans stored between two looks at the limits.
const SPANS_PER_CHECK: usize = 1024;
/// Connections of one process.
const CONNECTIONS: usize = 16;
/// How long a connection may be waited for.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may be waited for.
const MAX_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a transaction is tried that others came between.
const MAX_TRIES: u32 = 20;

fn between_tries(tries: u32) -> Duration {
    Duration::from_millis(fastrand::u64(1..=5 * u64::from(tries).max(1)))
}

fn encode(value: &impl Serialize) -> String {
    // Of values that are all JSON this can't fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// A row's JSON. What can't be read was not written by this program, and is no empty place.
fn decode<T: DeserializeOwned>(json: &str) -> std::result::Result<T, String> {
    serde_json::from_str(json).map_err(|error| format!("a stored row can't be read: {error}"))
}

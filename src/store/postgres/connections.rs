//! Connections to the server.
//!
//! A connection returns to the pool only after its work is complete. If the work takes too long, or its caller no longer
//! waits for it, a statement may still be running: it is cancelled, and the connection is closed. A cancellation can reach the
//! server before the statement does, so that the server limits the time of statements too.

use super::error::{QueryError, cause, is_refusal};
use super::options::server_name;
use super::schema;
use crate::store::api::BoxFuture;
use crate::store::error::StoreError;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use rustls::ClientConfig;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::{Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The pool of a store.
pub(super) struct Connections {
    pool: Pool,
    tls: MakeRustlsConnect,
    /// Host and port, for messages.
    pub(super) server: String,
    answer_timeout: Duration,
    has_tables: AtomicBool,
    making_tables: Mutex<()>,
}

impl Connections {
    /// An empty pool. Connections are opened when they are needed.
    pub(super) fn new(mut config: Config, tls: &ClientConfig, answer_timeout: Duration) -> Result<Self, StoreError> {
        // Detects a server that disappears without closing its connections.
        config.tcp_user_timeout(CONNECT_TIMEOUT).keepalives_idle(CONNECT_TIMEOUT).connect_timeout(CONNECT_TIMEOUT);
        let server = server_name(&config);
        let tls = MakeRustlsConnect::new(tls.clone());
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config, tls.clone(), recycling))
            .max_size(MAX_CONNECTIONS)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .post_create(limit_statements(answer_timeout))
            .build()
            .map_err(|error| StoreError::Other(error.to_string()))?;
        Ok(Self {
            pool,
            tls,
            server,
            answer_timeout,
            has_tables: AtomicBool::new(false),
            making_tables: Mutex::new(()),
        })
    }

    /// Creates or migrates the tables, once. All work does so first: the server may have been away at the start. Work that
    /// comes while other work tries fails, so that nothing queues for a server that does not answer.
    pub(super) async fn make_tables(&self) -> Result<(), QueryError> {
        if self.has_tables.load(Ordering::Acquire) {
            return Ok(());
        }
        let Ok(_making) = self.making_tables.try_lock() else {
            return Err(self.unreachable("it has not answered since the start".to_owned()));
        };
        let migrate = self.run_within(MIGRATION_TIMEOUT, |connection| {
            Box::pin(async move { Ok(schema::migrate(connection).await?) })
        });
        if let Some(found) = migrate.await? {
            let path = self.server.clone().into();
            return Err(QueryError::Connection(StoreError::TooNew { path, found, known: schema::known_version() }));
        }
        self.has_tables.store(true, Ordering::Release);
        Ok(())
    }

    fn unreachable(&self, cause: String) -> QueryError {
        QueryError::Connection(StoreError::Unreachable { server: self.server.clone(), cause })
    }

    /// Runs `work` on a connection, within the answer timeout.
    pub(super) async fn run<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Object) -> BoxFuture<'c, Result<T, QueryError>> + Send,
    ) -> Result<T, QueryError> {
        self.make_tables().await?;
        self.run_within(self.answer_timeout, work).await
    }

    /// As [`Self::run`], for work that may take as long as a migration.
    pub(super) async fn run_long<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Object) -> BoxFuture<'c, Result<T, QueryError>> + Send,
    ) -> Result<T, QueryError> {
        self.make_tables().await?;
        self.run_within(MIGRATION_TIMEOUT, work).await
    }

    async fn run_within<T>(
        &self,
        limit: Duration,
        work: impl for<'c> FnOnce(&'c mut Object) -> BoxFuture<'c, Result<T, QueryError>> + Send,
    ) -> Result<T, QueryError> {
        let mut lease = self.lease().await?;
        let work = work(lease.connection()?);
        let done = timeout(limit, work).await.map_err(|_| QueryError::Timeout(limit))?;
        lease.release();
        done
    }

    /// Runs `work`, which may block on the runtime it gets, on a thread of its own and on a connection. It has to apply the
    /// timeout to each statement.
    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Object, &Blocking) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        self.make_tables().await?;
        let mut lease = self.lease().await?;
        let blocking =
            Blocking { runtime: Handle::current(), answer_timeout: self.answer_timeout, server: self.server.clone() };
        let running = tokio::task::spawn_blocking(move || {
            let done = work(lease.connection()?, &blocking);
            if !matches!(done, Err(QueryError::Timeout(_))) {
                lease.release();
            }
            done
        });
        running.await.unwrap_or_else(|error| Err(QueryError::Connection(StoreError::Other(error.to_string()))))
    }

    /// Closes the pool. Later work fails.
    pub(super) fn close(&self) {
        self.pool.close();
    }

    async fn lease(&self) -> Result<Lease, QueryError> {
        let connection = self.pool.get().await.map_err(|error| {
            let cause = match error {
                PoolError::Closed => return QueryError::Connection(StoreError::Closed),
                PoolError::Backend(error) if is_refusal(&error) => {
                    let text = format!("PostgreSQL at {}: {}", self.server, cause(&error));
                    return QueryError::Connection(StoreError::Other(text));
                }
                PoolError::Backend(error) => cause(&error),
                other => other.to_string(),
            };
            self.unreachable(cause)
        })?;
        Ok(Lease { connection: Some(connection), tls: self.tls.clone() })
    }
}

/// Makes the server end statements of a new connection that take too long.
fn limit_statements(limit: Duration) -> Hook {
    let sql = format!("SET statement_timeout = {}", limit.as_millis());
    Hook::async_fn(move |client, _| {
        let sql = sql.clone();
        Box::pin(async move {
            let done = timeout(CONNECT_TIMEOUT, client.batch_execute(&sql)).await;
            done.map_err(|_| HookError::message("no answer in time"))?.map_err(HookError::Backend)
        })
    })
}

/// Waits for statements on a thread that may block.
pub(super) struct Blocking {
    runtime: Handle,
    answer_timeout: Duration,
    /// Host and port, for messages.
    pub(super) server: String,
}

impl Blocking {
    /// Waits for one statement.
    pub(super) fn wait<T>(&self, statement: impl Future<Output = Result<T, Error>>) -> Result<T, QueryError> {
        let waited = self.runtime.block_on(async { timeout(self.answer_timeout, statement).await });
        Ok(waited.map_err(|_| QueryError::Timeout(self.answer_timeout))??)
    }
}

/// A connection in use.
struct Lease {
    /// `None` once it has been released.
    connection: Option<Object>,
    tls: MakeRustlsConnect,
}

impl Lease {
    fn connection(&mut self) -> Result<&mut Object, QueryError> {
        self.connection.as_mut().ok_or(QueryError::Connection(StoreError::Closed))
    }

    /// Returns the connection to the pool. No statement is running on it.
    fn release(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let (token, tls) = (connection.cancel_token(), self.tls.clone());
        // Out of the pool, and closed. The server notices that only when it sends something, hence the cancellation.
        drop(Object::take(connection));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                match timeout(CONNECT_TIMEOUT, token.cancel_query(tls)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a statement that takes too long can't be cancelled"),
                    Err(_) => tracing::debug!("a statement that takes too long can't be cancelled in time"),
                }
            });
        }
    }
}

/// A migration may rewrite large tables.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Connections of one process.
const MAX_CONNECTIONS: usize = 16;
/// How long the establishment of a connection may take, and how long a caller waits for one of the pool.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

//! Starts the tasks of connections, those of clients and those to endpoints: a panic in one ends that task only.

use crate::util::panics::{Panicked, caught};
use hyper::rt::Executor;
use std::future::Future;
use tokio::task::JoinHandle;

/// Runs `task` beside its caller. Its panic is its result, and closes what it holds.
pub(crate) fn spawn<T>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<Result<T, Panicked>>
where
    T: Send + 'static,
{
    tokio::spawn(caught(Box::pin(task)))
}

/// Runs the tasks that the HTTP library starts for the streams of an HTTP/2 connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionExecutor;

impl<F> Executor<F> for ConnectionExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        drop(spawn(task));
    }
}

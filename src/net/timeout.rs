//! Time limits as the settings express them.

use std::future::Future;
use std::time::Duration;

/// Runs `future` for at most `limit`; a limit of zero means no limit. Returns `None` when the time ran out.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    if limit.is_zero() { Some(future.await) } else { tokio::time::timeout(limit, future).await.ok() }
}

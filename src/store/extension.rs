//! Operations on any store that are expressed by those of [`Store`].

use super::api::Store;
use super::error::{Result, StoreError};
use super::records::Records;
use crate::trace::{Attempt, Rollout};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

/// Implemented for every [`Store`].
pub trait StoreExt: Store {
    /// Runs `job` as a transaction and returns its result. `job` may run several times, see [`super::Change`].
    fn transaction<T: Send + 'static>(
        &self,
        mut job: impl FnMut(&mut dyn Records) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        let changed = self.change(Box::new(move |records| {
            let done = job(records)?;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
            Ok(())
        }));
        async move {
            changed.await?;
            result.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(StoreError::Closed)
        }
    }

    /// [`Records::upsert_rollout`] as a transaction.
    fn upsert_rollout(&self, rollout: Rollout) -> impl Future<Output = Result<()>> + Send {
        self.transaction(move |records| records.upsert_rollout(&rollout))
    }

    /// [`Records::upsert_attempt`] as a transaction.
    fn upsert_attempt(&self, attempt: Attempt) -> impl Future<Output = Result<Attempt>> + Send {
        self.transaction(move |records| records.upsert_attempt(attempt.clone()))
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

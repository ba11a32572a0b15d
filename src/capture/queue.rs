//! The queue between recordings and a worker of the pipeline.
//!
//! A worker that gathers exchanges for a common commit sleeps meanwhile: to wake a thread costs more than to deliver an exchange.
//! It is woken early by an exchange that a response waits for, and when half of the queue is in use.

use super::captured::Captured;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::mpsc::{self, OwnedPermit, Receiver, Sender};

/// The end of a queue that recordings feed.
#[derive(Clone, Debug)]
pub(super) struct CaptureQueueSender {
    sender: Sender<Captured>,
    early: Arc<Notify>,
}

/// A reserved place in a queue.
#[derive(Debug)]
pub(super) struct QueueSlot {
    permit: OwnedPermit<Captured>,
    early: Arc<Notify>,
}

/// The end of a queue that a worker takes exchanges from.
#[derive(Debug)]
pub struct CaptureQueue {
    receiver: Receiver<Captured>,
    early: Arc<Notify>,
}

/// A queue for so many exchanges.
pub(super) fn capture_queue(capacity: usize) -> (CaptureQueueSender, CaptureQueue) {
    let (sender, receiver) = mpsc::channel(capacity);
    let early = Arc::new(Notify::new());
    (CaptureQueueSender { sender, early: Arc::clone(&early) }, CaptureQueue { receiver, early })
}

impl CaptureQueueSender {
    /// True if no place is free.
    pub(super) fn is_full(&self) -> bool {
        self.sender.capacity() == 0
    }

    /// Reserves a place. The error returns the sender.
    pub(super) fn try_reserve(&self) -> Result<QueueSlot, TrySendError<Self>> {
        match self.sender.clone().try_reserve_owned() {
            Ok(permit) => Ok(QueueSlot { permit, early: Arc::clone(&self.early) }),
            Err(TrySendError::Full(_)) => Err(TrySendError::Full(self.clone())),
            Err(TrySendError::Closed(_)) => Err(TrySendError::Closed(self.clone())),
        }
    }

    /// Reserves a place once one is free. `None` if the worker has ended.
    pub(super) async fn reserve(self) -> Option<QueueSlot> {
        let permit = self.sender.reserve_owned().await.ok()?;
        Some(QueueSlot { permit, early: self.early })
    }
}

impl QueueSlot {
    /// Delivers an exchange. A slot is valid even while the queue is closing.
    pub(super) fn deliver(self, captured: Captured) {
        let is_awaited = captured.committed.is_some();
        let sender = self.permit.send(captured);
        if is_awaited || sender.capacity() < sender.max_capacity() / 2 {
            self.early.notify_one();
        }
    }
}

impl CaptureQueue {
    /// The next exchange. `None` if there will be none.
    pub async fn recv(&mut self) -> Option<Captured> {
        self.receiver.recv().await
    }

    /// An exchange that is there.
    pub fn try_recv(&mut self) -> Result<Captured, TryRecvError> {
        self.receiver.try_recv()
    }

    /// Adds the exchanges that are there to `batch`, `max` at most; waits for the first. Returns how many they are, 0 if there
    /// will be none.
    pub(crate) async fn recv_many(&mut self, batch: &mut Vec<Captured>, max: usize) -> usize {
        self.receiver.recv_many(batch, max).await
    }

    /// Exchanges that are there.
    pub(crate) fn waiting(&self) -> usize {
        self.receiver.len()
    }

    /// Takes no new reservations. What was reserved is still delivered.
    pub(crate) fn close(&mut self) {
        self.receiver.close();
    }

    /// Adds the exchanges that are there until `batch` has `max`. What wakes [`CaptureQueue::early`] from now on comes behind them.
    pub(crate) fn drain_into(&mut self, batch: &mut Vec<Captured>, max: usize) {
        // A wake-up from before concerns what is taken now. An exchange that comes meanwhile wakes again.
        {
            let mut earlier = std::pin::pin!(self.early.notified());
            earlier.as_mut().enable();
        }
        while batch.len() < max
            && let Ok(captured) = self.receiver.try_recv()
        {
            batch.push(captured);
        }
    }

    /// Waits until there is a reason to take exchanges at once.
    pub(crate) async fn early(&self) {
        self.early.notified().await;
    }
}

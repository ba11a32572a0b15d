//! Delivers what is stored to one destination: in order, batch by batch, each again until it is accepted or refused.

use super::counters::ExportCounters;
use super::cursor::{Cursor, ExportStart, Hold, KEEP_INTERVAL};
use super::outcome::{DropReason, Fault, Outcome};
use super::reader::{Destination, Page, Prepared};
use super::retry::{MAX_PAUSE, pauses};
use crate::store::Result;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What exports do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for what is stored.
    Running,
    /// The program ends: what is stored already is sent, unless a receiver does not accept it at once.
    Flushing,
    /// Nothing further is sent.
    Ended,
}

/// An export to one destination, with its cursor and its counts.
pub(super) struct Delivery<D> {
    pub(super) destination: D,
    pub(super) cursor: Cursor,
    pub(super) counters: Arc<ExportCounters>,
    /// Pause before the store is read again.
    pub(super) interval: Duration,
    pub(super) start: ExportStart,
    pub(super) phase: watch::Receiver<Phase>,
}

/// What to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    GoOn,
    /// The program ends, or another one exports.
    Stop,
}

impl<D: Destination> Delivery<D> {
    /// Takes the cursor if it is free. Called before anything is stored, so that a new export begins there.
    pub(super) async fn take(&self) -> Result<Hold> {
        let start = match self.start {
            ExportStart::All => 0,
            ExportStart::New => self.destination.newest().await?,
        };
        self.cursor.take(start).await
    }

    /// Delivers until the program ends.
    pub(super) async fn run(self) {
        loop {
            let delivered = match self.take().await {
                Ok(Hold::Held) => self.deliver().await,
                Ok(Hold::Elsewhere) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = delivered {
                tracing::warn!(%error, export = self.counters.name, "an export can't read the store; trying again later");
            }
            self.counters.waiting.store(0, Ordering::Relaxed);
            if self.phase() != Phase::Running {
                break;
            }
            self.sleep(KEEP_INTERVAL).await;
        }
        self.cursor.release().await;
    }

    /// Delivers while this program holds the cursor.
    async fn deliver(&self) -> Result<()> {
        let mut page = self.destination.page(self.cursor.position()).await?;
        loop {
            self.note_waiting(page.newest);
            let step = if page.through > self.cursor.position() {
                self.counters.add_dropped(DropReason::Removed, page.removed);
                // The next page is read meanwhile.
                let (sent, next) = tokio::join!(self.send_page(&page), self.destination.page(page.through));
                page = next?;
                sent?
            } else if self.phase() == Phase::Running {
                let step = self.pause(self.interval).await?;
                page = self.destination.page(page.through).await?;
                step
            } else {
                Step::Stop
            };
            if step == Step::Stop {
                return Ok(());
            }
        }
    }

    async fn send_page(&self, page: &Page<D::Item>) -> Result<Step> {
        let whole = 0..page.items.len();
        let mut parts = vec![whole];
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            match self.send(page, part.clone()).await? {
                Sent::Done => {
                    let is_last = part.end == page.items.len();
                    let position = if is_last { page.through } else { page.positions[part.end - 1] };
                    if self.cursor.advance(position).await? == Hold::Elsewhere {
                        return Ok(Step::Stop);
                    }
                }
                Sent::TooLarge => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
                Sent::Not => return Ok(Step::Stop),
            }
        }
        let is_empty = page.items.is_empty();
        let held = if is_empty { self.cursor.advance(page.through).await? } else { Hold::Held };
        Ok(if held == Hold::Held && self.phase() != Phase::Ended { Step::GoOn } else { Step::Stop })
    }

    /// Sends some items of a page until they are accepted or refused.
    async fn send(&self, page: &Page<D::Item>, part: Range<usize>) -> Result<Sent> {
        let count = part.len() as u64;
        let request = match self.destination.prepare(Arc::clone(&page.items), part).await? {
            Prepared::Request(request) => request,
            Prepared::Nothing(reason) => {
                self.counters.add_dropped(reason, count);
                return Ok(Sent::Done);
            }
        };
        let mut tries = 0;
        let mut pauses = pauses();
        loop {
            match self.while_kept(self.destination.post(request.clone())).await {
                Outcome::Accepted { rejected: 0, .. } => {
                    self.counters.add_sent(count);
                    self.counters.recover();
                    return Ok(Sent::Done);
                }
                Outcome::Accepted { rejected, message } => {
                    let rejected = rejected.min(count);
                    self.counters.add_sent(count - rejected);
                    self.counters.add_dropped(DropReason::Rejected, rejected);
                    self.counters.fail(format!("the receiver rejects some for what they contain: {message}"));
                    return Ok(Sent::Done);
                }
                Outcome::TooLarge if count > 1 => return Ok(Sent::TooLarge),
                Outcome::TooLarge => {
                    self.counters.add_dropped(DropReason::TooLarge, count);
                    self.counters.fail("some are too large for the receiver, each in a request of its own".to_owned());
                    return Ok(Sent::Done);
                }
                Outcome::Refused { reason, cause } => {
                    self.counters.add_dropped(reason, count);
                    self.counters.fail(cause);
                    return Ok(Sent::Done);
                }
                Outcome::Later { after, cause, fault } => {
                    self.counters.fail(cause);
                    tries += u32::from(fault == Fault::Request);
                    if tries >= MAX_TRIES {
                        self.counters.add_dropped(DropReason::GaveUp, count);
                        return Ok(Sent::Done);
                    }
                    // A receiver that asks for no pause gets the usual one: it would be busy with repetitions otherwise.
                    let asked = after.filter(|pause| !pause.is_zero());
                    let pause = asked.or_else(|| pauses.next()).unwrap_or(MAX_PAUSE);
                    if self.phase() != Phase::Running || self.pause_before_retry(pause).await? == Step::Stop {
                        return Ok(Sent::Not);
                    }
                    self.counters.retried.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Keeps the cursor while `work` goes on.
    async fn while_kept<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(KEEP_INTERVAL) => drop(self.cursor.keep().await),
            }
        }
    }

    fn note_waiting(&self, newest: u64) {
        let waiting = newest.saturating_sub(self.cursor.position());
        self.counters.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Waits as [`Self::pause`] does, and counts what is stored meanwhile.
    async fn pause_before_retry(&self, pause: Duration) -> Result<Step> {
        let end = Instant::now() + pause;
        loop {
            self.note_waiting(self.destination.newest().await?);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.phase() != Phase::Running {
                return Ok(Step::GoOn);
            }
            if self.pause(left.min(COUNT_INTERVAL)).await? == Step::Stop {
                return Ok(Step::Stop);
            }
        }
    }

    /// Waits, and keeps the cursor. Ends early when the program ends.
    async fn pause(&self, pause: Duration) -> Result<Step> {
        let end = Instant::now() + pause;
        while self.phase() == Phase::Running {
            if self.cursor.keep_if_due().await? == Hold::Elsewhere {
                return Ok(Step::Stop);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.sleep(left.min(KEEP_INTERVAL)).await;
        }
        Ok(Step::GoOn)
    }

    /// Waits, or until the phase changes.
    async fn sleep(&self, pause: Duration) {
        let mut phase = self.phase.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Without a sender the phase does not change any more.
            Ok(_) = phase.wait_for(|phase| *phase != Phase::Running) => {}
        }
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// How often what waits is counted during a pause.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// How often a request is sent that the receiver fails to process.
const MAX_TRIES: u32 = 8;

/// What became of some items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// They were accepted, or never will be.
    Done,
    /// They have to be sent in smaller requests.
    TooLarge,
    /// They were not accepted before the program ended, or before another one took the cursor: they stay in the store.
    Not,
}

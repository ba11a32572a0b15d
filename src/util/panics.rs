//! Panics are defects of this program. One costs no more than the connection or the record that it happens in: it is caught
//! where a task starts, counted, and logged with its place, each place once.
//!
//! The counts are the process's, as the panic hook is. Bound: [`MAX_PLACES`] places; panics at others are only counted.

use crate::error::{ErrorKind, ProxyError};
use serde::Serialize;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// What panicked has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

impl From<Panicked> for ProxyError {
    fn from(_: Panicked) -> Self {
        Self::new(ErrorKind::ProxyInternalError, "", "a task panicked")
    }
}

/// Where in the source the program panicked, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PanicPlace {
    /// The place in the source, as `FILE:LINE:COLUMN`.
    pub(crate) place: String,
    /// How often the program panicked there; at least 1.
    pub(crate) count: u64,
}

impl fmt::Display for PanicPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.count == 1 { "once".to_owned() } else { format!("{} times", self.count) };
        write!(f, "Tracewire panicked at {}, {times}: this is a defect; please report it", self.place)
    }
}

struct Panics {
    total: u64,
    places: Vec<PanicPlace>,
}

static PANICS: Mutex<Panics> = Mutex::new(Panics { total: 0, places: Vec::new() });

thread_local! {
    // True while what a caught panic left behind is dropped.
    static CLEANING_UP: Cell<bool> = const { Cell::new(false) };
}

/// Counts and logs all panics of this process from now on.
pub(crate) fn observe() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        if count_at(&place) {
            let cause = cause(panic);
            tracing::error!(place, cause, "this is a defect of Tracewire: a task panicked; please report it");
        }
    }));
}

/// The message of a panic. It may quote traffic: no more of it than a line.
fn cause<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    let text = panic.payload_as_str().unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    &line[..line.floor_char_boundary(MAX_CAUSE_BYTES)]
}

/// Counts a panic. True if it is the first at its place.
fn count_at(place: &str) -> bool {
    let mut panics = lock();
    panics.total += 1;
    if let Some(known) = panics.places.iter_mut().find(|known| known.place == place) {
        known.count += 1;
        return false;
    }
    let has_room = panics.places.len() < MAX_PLACES;
    if has_room {
        panics.places.push(PanicPlace { place: place.to_owned(), count: 1 });
    }
    has_room
}

/// The number of panics since [`observe`].
pub(crate) fn total() -> u64 {
    lock().total
}

/// The places of these panics, in the order of the first at each.
pub(crate) fn places() -> Vec<PanicPlace> {
    lock().places.clone()
}

fn lock() -> MutexGuard<'static, Panics> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `function`, and catches a panic of it. What it changed must not be used after one.
pub(crate) fn catch<T>(function: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(function)).map_err(|_| Panicked)
}

/// True while values are dropped because of a panic, caught or not.
pub(crate) fn is_unwinding() -> bool {
    std::thread::panicking() || CLEANING_UP.get()
}

/// Drops what a caught panic left behind, with [`is_unwinding`].
pub(crate) fn discard<T>(left: T) {
    CLEANING_UP.set(true);
    let _ = catch(|| drop(left));
    CLEANING_UP.set(false);
}

/// A future of which a panic is caught. It is then dropped, and not polled again.
pub(crate) struct Caught<F>(Option<F>);

/// Catches a panic of `future`.
pub(crate) fn caught<F: Future + Unpin>(future: F) -> Caught<F> {
    Caught(Some(future))
}

impl<F: Future + Unpin> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.0 else { return Poll::Ready(Err(Panicked)) };
        let polled = catch(|| Pin::new(future).poll(cx));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(Panicked) => {
                discard(self.0.take());
                Poll::Ready(Err(Panicked))
            }
        }
    }
}

const MAX_PLACES: usize = 64;
const MAX_CAUSE_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Reports whether it is dropped because of a panic.
    struct Reports(mpsc::Sender<bool>);

    impl Drop for Reports {
        fn drop(&mut self) {
            let _ = self.0.send(is_unwinding());
        }
    }

    #[tokio::test]
    async fn a_panic_is_caught_and_what_it_leaves_is_dropped_as_such() {
        let (sender, dropped) = mpsc::channel();
        let (inside, outside) = (Reports(sender.clone()), Reports(sender.clone()));
        let future = Box::pin(async move {
            let _inside = inside;
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "on purpose");
        });
        // A body of a connection is not dropped by the panic itself, but with the connection.
        struct Holds<F>(F, #[expect(dead_code, reason = "dropped")] Reports);
        impl<F: Future + Unpin> Future for Holds<F> {
            type Output = F::Output;
            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
                Pin::new(&mut self.0).poll(cx)
            }
        }
        let mut running = caught(Holds(future, outside));
        assert_eq!((&mut running).await, Err(Panicked));
        assert_eq!(dropped.try_iter().collect::<Vec<_>>(), [true, true]);
        assert_eq!(running.await, Err(Panicked), "it is not polled again");
        let (done, after) = (caught(Box::pin(async { 7 })).await, Reports(sender));
        drop(after);
        assert_eq!((done, dropped.recv()), (Ok(7), Ok(false)));
    }

    #[test]
    fn places_are_counted_and_new_once() {
        assert!(count_at("a.rs:1:1") && !count_at("a.rs:1:1") && count_at("b.rs:1:1"));
        let count = |place: &str| places().iter().find(|known| known.place == place).map(|known| known.count);
        assert_eq!((count("a.rs:1:1"), count("b.rs:1:1"), count("c.rs:1:1")), (Some(2), Some(1), None));
        assert!(total() >= 3);
        let shown: Vec<String> = places().iter().map(ToString::to_string).collect();
        assert!(shown.iter().any(|text| text.contains("at a.rs:1:1, 2 times:")), "{shown:?}");
        assert!((0..2 * MAX_PLACES).filter(|line| count_at(&format!("c.rs:{line}:1"))).count() < MAX_PLACES);
    }
}

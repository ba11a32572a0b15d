//! Connects to the first of several addresses that answers: "Happy Eyeballs" (RFC 8305).
//!
//! An attempt that neither succeeds nor fails within 250 ms no longer holds back the next address, and all attempts stay
//! in the race. hyper-util's `HttpConnector` does this only between the two address families: within a family it still
//! tries one address after the other. Resolving is the caller's work, and so is the overall time limit.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;

/// Orders addresses for the race: the families alternate, beginning with the family of the first address (RFC 8305 §4).
/// Within a family the resolver's order, which follows RFC 6724, is kept.
pub(super) fn interleave_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().copied() else { return addresses };
    let count = addresses.len();
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut ordered = Vec::with_capacity(count);
    while ordered.len() < count {
        ordered.extend(preferred.next());
        ordered.extend(other.next());
    }
    ordered
}

/// Connects to `addresses`, which are in order of preference. The first connection wins, and the other attempts are
/// cancelled. If all fail, the error is that of the attempt that failed last; without addresses it is `NotFound`.
pub(super) async fn connect_first<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<(T, SocketAddr)>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    // Most names have one address, which needs no race.
    if let [address] = addresses[..] {
        return Ok((connect(address).await?, address));
    }
    let mut waiting = addresses.into_iter();
    // Dropping the set cancels the attempts in it.
    let mut attempts = JoinSet::new();
    let mut last_error = io::Error::from(io::ErrorKind::NotFound);
    while let Some(address) = waiting.next() {
        let attempt = connect(address);
        attempts.spawn(async move { attempt.await.map(|connected| (connected, address)) });
        let is_last = waiting.len() == 0;
        let head_start = tokio::time::sleep(ATTEMPT_DELAY);
        tokio::pin!(head_start);
        loop {
            tokio::select! {
                finished = attempts.join_next() => match finished {
                    Some(Ok(Ok(winner))) => return Ok(winner),
                    Some(Ok(Err(error))) => last_error = error,
                    Some(Err(error)) => last_error = io::Error::other(error),
                    None => return Err(last_error),
                },
                () = &mut head_start, if !is_last => {}
            }
            // After a failure the next attempt starts at once.
            if !is_last {
                break;
            }
        }
    }
    Err(last_error)
}

/// RFC 8305 §5, "Connection Attempt Delay".
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::Instant;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    /// What happens to an attempt, by the last number of its address: 0 never answers, 1 to 99 fail and others succeed
    /// after that many milliseconds.
    fn attempt(to: SocketAddr, under_way: &Arc<AtomicUsize>) -> impl Future<Output = io::Result<()>> + Send + use<> {
        struct UnderWay(Arc<AtomicUsize>);
        impl Drop for UnderWay {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        under_way.fetch_add(1, Ordering::Relaxed);
        let counted = UnderWay(Arc::clone(under_way));
        async move {
            let _counted = counted;
            let IpAddr::V4(ip) = to.ip() else { return Err(io::ErrorKind::Unsupported.into()) };
            match ip.octets()[3] {
                0 => std::future::pending().await,
                delay => {
                    tokio::time::sleep(Duration::from_millis(delay.into())).await;
                    if delay < 100 { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
                }
            }
        }
    }

    /// The winner, how many milliseconds it took, and how many attempts were left behind.
    async fn race(ends: &[u8]) -> (io::Result<SocketAddr>, u128, usize) {
        let (under_way, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let addresses = ends.iter().map(|end| address(*end)).collect();
        let winner = connect_first(addresses, |to| attempt(to, &under_way)).await.map(|((), address)| address);
        let took = began.elapsed().as_millis();
        // Cancelled tasks are dropped when the runtime polls them.
        for _ in ends {
            tokio::task::yield_now().await;
        }
        (winner, took, under_way.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn black_holes_cost_one_delay_each() {
        let (winner, took, left) = race(&[0, 0, 120]).await;
        assert_eq!((winner.unwrap(), took, left), (address(120), 2 * 250 + 120, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_attempt_at_once() {
        let (winner, took, left) = race(&[5, 7, 110]).await;
        assert_eq!((winner.unwrap(), took, left), (address(110), 5 + 7 + 110, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_attempt_can_still_win() {
        // The second starts after 250 ms and would take another 200.
        let (winner, took, left) = race(&[254, 200]).await;
        assert_eq!((winner.unwrap(), took, left), (address(254), 254, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn all_failures_are_an_error() {
        let (winner, took, _) = race(&[5, 6]).await;
        assert_eq!((winner.unwrap_err().kind(), took), (io::ErrorKind::ConnectionRefused, 11));
        assert_eq!(race(&[]).await.0.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(race(&[9]).await.0.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    proptest! {
        #[test]
        fn interleaving_alternates_and_keeps_order(families in prop::collection::vec(any::<bool>(), 0..12)) {
            let addresses: Vec<SocketAddr> = families.iter().zip(1..).map(|(is_v4, port)| {
                let ip = if *is_v4 { Ipv4Addr::LOCALHOST.into() } else { IpAddr::from(Ipv6Addr::LOCALHOST) };
                SocketAddr::new(ip, port)
            }).collect();
            let ordered = interleave_families(addresses.clone());
            prop_assert_eq!(ordered.first(), addresses.first());
            for is_v4 in [true, false] {
                let of_family = |all: &[SocketAddr]| all.iter().filter(|one| one.is_ipv4() == is_v4).copied().collect::<Vec<_>>();
                prop_assert_eq!(of_family(&ordered), of_family(&addresses));
            }
            let pairs = 2 * families.iter().filter(|is_v4| **is_v4).count().min(families.iter().filter(|is_v4| !**is_v4).count());
            prop_assert!(ordered[..pairs].windows(2).all(|pair| pair[0].is_ipv4() != pair[1].is_ipv4()));
        }
    }
}

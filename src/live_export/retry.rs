//! When a request is sent again.

use backon::{BackoffBuilder, ExponentialBuilder};
use http::{HeaderMap, header};
use std::time::{Duration, SystemTime};

/// Growing pauses with jitter, without end.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(MIN_PAUSE)
        .with_max_delay(MAX_PAUSE)
        .without_max_times()
        .build()
}

/// The pause that a response asks for, in seconds or as a date; at most [`MAX_RETRY_AFTER`].
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

const MIN_PAUSE: Duration = Duration::from_millis(500);
/// Before jitter, which at most doubles it.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A receiver that names a later time is asked then.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_a_receiver_names_is_read_in_both_forms() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        let of = |text: &str| retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]), now);
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Wed, 21 Oct 2026 07:28:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let all: Vec<Duration> = pauses().take(20).collect();
        assert!(all[0] >= MIN_PAUSE && all.iter().all(|pause| *pause <= MAX_PAUSE * 2), "{all:?}");
        assert!(all[10] >= MAX_PAUSE, "{all:?}");
    }
}

//! Times as RFC 3339 writes them, as far as they are on or after the Unix epoch.

use crate::trace::Timestamp;
use time::{Date, Month};

/// The time that a text such as `2026-11-27T08:30:00.5+01:00` names. `None` for any other text.
pub(super) fn parsed(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let mut parts = clock.split(':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let nanos = digits(&format!("{:0<9.9}", fraction))?;
    let day_seconds = i64::from(date.to_julian_day() - EPOCH_DAY) * 86_400;
    let seconds = day_seconds + i64::try_from(hour * 3600 + minute * 60 + second).ok()? - offset(zone)?;
    let seconds = u64::try_from(seconds).ok()?;
    Some(Timestamp::from_unix_nanos(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

/// Seconds east of UTC. A time without a zone is read as UTC.
fn offset(zone: &str) -> Option<i64> {
    let (sign, zone) = match zone.split_at_checked(1) {
        None | Some(("Z" | "z", "")) => return Some(0),
        Some(("+", zone)) => (1, zone),
        Some(("-", zone)) => (-1, zone),
        Some(_) => return None,
    };
    let (hours, minutes) = zone.split_once(':').or_else(|| zone.split_at_checked(2))?;
    let minutes = if minutes.is_empty() { 0 } else { digits(minutes)? };
    Some(sign * i64::try_from(digits(hours)? * 3600 + minutes * 60).ok()?)
}

/// A number of at most nine digits, and of nothing else.
fn digits(text: &str) -> Option<u64> {
    let is_number = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// The Julian day of 1970-01-01.
const EPOCH_DAY: i32 = 2_440_588;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_zone() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2023-11-14T22:13:20.25Z", Some(1_700_000_000_250_000_000)),
            ("2023-11-14T23:13:20+01:00", Some(1_700_000_000_000_000_000)),
            ("2023-11-14 17:13:20.123456789123-0500", Some(1_700_000_000_123_456_789)),
            ("2023-11-14T22:13:20", Some(1_700_000_000_000_000_000)),
            ("1969-12-31T23:59:59Z", None),
            ("2023-13-14T22:13:20Z", None),
            ("2023-11-14", None),
            ("2023-11-14T22:13:20X", None),
            ("", None),
            ("ääääääääääää", None),
        ] {
            assert_eq!(parsed(text).map(|time| time.unix_nanos), expected, "{text}");
        }
    }
}

//! Time as the program carries it, and the serde adapters that keep units in setting names.
//!
//! Nothing here reads a clock: callers pass the instant in.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// A wall-clock instant: nanoseconds since the Unix epoch. In JSON it is float seconds, as in Agent Lightning's `Span`;
/// a number above 1e12 is read as nanoseconds, as there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
}

impl Timestamp {
    /// The instant that many nanoseconds after the Unix epoch.
    pub const fn from_unix_nanos(unix_nanos: u64) -> Self {
        Self { unix_nanos }
    }

    /// From float seconds. Negative and non-finite numbers become the epoch.
    pub fn from_unix_secs(secs: f64) -> Self {
        // `as` saturates, and maps NaN to 0. The fraction is exact, which `secs * 1e9` is not.
        let nanos = (secs.fract() * NANOS_PER_SEC as f64).round() as u64;
        Self { unix_nanos: (secs.trunc() as u64).saturating_mul(NANOS_PER_SEC).saturating_add(nanos) }
    }

    /// Float seconds since the epoch; exact to about 240 ns for today's dates. [`Self::from_unix_secs`] of a number that a
    /// double has gives the same number back.
    pub fn unix_secs(self) -> f64 {
        let (secs, nanos) = (self.unix_nanos / NANOS_PER_SEC, self.unix_nanos % NANOS_PER_SEC);
        secs as f64 + nanos as f64 / NANOS_PER_SEC as f64
    }

    /// The instant `by` later.
    pub fn after(self, by: Duration) -> Self {
        Self { unix_nanos: self.unix_nanos.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)) }
    }

    /// The time from `earlier` to this instant. Zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.unix_nanos.saturating_sub(earlier.unix_nanos))
    }
}

const NANOS_PER_SEC: u64 = 1_000_000_000;

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.unix_secs())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if number > 1e12 { Ok(Self { unix_nanos: number as u64 }) } else { Ok(Self::from_unix_secs(number)) }
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Number));
        number.description(Some("Seconds since the Unix epoch.")).into()
    }
}

impl ToSchema for Timestamp {}

/// Serde adapter for settings in whole milliseconds (`…_ms`).
pub mod millis {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    /// Writes whole milliseconds.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(value.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
    }

    /// Reads whole milliseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_float_seconds_and_large_numbers_are_nanoseconds() {
        let at = Timestamp::from_unix_nanos(1_700_000_000_500_000_000);
        assert_eq!(serde_json::to_string(&at).unwrap(), "1700000000.5");
        assert_eq!(serde_json::from_str::<Timestamp>("1700000000.5").unwrap(), at);
        assert_eq!(serde_json::from_str::<Timestamp>("1700000000500000000").unwrap(), at);
    }

    #[test]
    fn seconds_of_another_program_are_returned_as_they_came() {
        for secs in [1_795_712_204.266_324_5, 1_795_712_204.266_344_5, 1.5, 0.1, 1_700_000_000.123_456_7] {
            assert_eq!(Timestamp::from_unix_secs(secs).unix_secs(), secs);
        }
    }

    #[test]
    fn bad_numbers_become_the_epoch() {
        assert_eq!(Timestamp::from_unix_secs(-3.0), Timestamp::default());
        assert_eq!(Timestamp::from_unix_secs(f64::NAN), Timestamp::default());
    }
}

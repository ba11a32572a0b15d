//! Metrics as OTLP and Prometheus know them: histograms with explicit bounds, of everything since the start of the program.

use super::units::Timestamp;

/// The value of an attribute of a point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MetricLabel {
    /// The value of a label that is a text.
    Text(String),
    /// A whole number.
    Int(i64),
}

/// The attributes of a point, by name.
pub(crate) type MetricLabels = Vec<(&'static str, MetricLabel)>;

/// What is the same for all points of a histogram.
#[derive(Debug)]
pub(crate) struct HistogramKind {
    /// The name in OpenTelemetry's conventions.
    pub name: &'static str,
    /// For people, without a full stop.
    pub description: &'static str,
    /// A unit of UCUM: `s`, or `{token}`.
    pub unit: &'static str,
    /// The upper bounds of the buckets, each inclusive and in ascending order. One more bucket is above the last one.
    pub bounds: &'static [f64],
}

/// A histogram at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    pub kind: &'static HistogramKind,
    /// From when on values are counted.
    pub since: Timestamp,
    /// One for each combination of attributes.
    pub points: Vec<(MetricLabels, Distribution)>,
}

/// The values of a point.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    /// Values in each bucket, one more than there are bounds.
    pub buckets: Vec<u64>,
    pub count: u64,
    pub sum: f64,
    /// Infinite without values.
    pub min: f64,
    /// Infinite without values.
    pub max: f64,
}

impl Distribution {
    /// No values yet.
    pub(crate) fn of(kind: &HistogramKind) -> Self {
        Self { buckets: vec![0; kind.bounds.len() + 1], count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }

    /// Adds a value, which must be finite.
    pub(crate) fn add(&mut self, kind: &HistogramKind, value: f64) {
        let bucket = kind.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_that_ends_with_it() {
        const KIND: HistogramKind = HistogramKind { name: "n", description: "", unit: "s", bounds: &[1.0, 2.0] };
        let mut values = Distribution::of(&KIND);
        for value in [0.0, 1.0, 1.5, 2.0, 7.0] {
            values.add(&KIND, value);
        }
        let expected = Distribution { buckets: vec![2, 2, 1], count: 5, sum: 11.5, min: 0.0, max: 7.0 };
        assert_eq!(values, expected);
    }
}

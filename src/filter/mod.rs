//! Which spans are stored, and how much of each: the limits of spans and of rollouts, and sampling.
//!
//! [`SpanFilter`] sees every span of the pipeline and of the API after redaction, and before the store. What it leaves out is
//! counted: in metrics, and in a span of the rollout ([`not_stored`]). Its maps are bounded. Without settings it does nothing.

mod cause;
mod counters;
mod counts;
mod essential;
mod left_out;
mod limit_settings;
mod not_stored;
mod ratio;
mod recent_rollouts;
mod rollout_usage;
mod sampling;
mod sampling_settings;
mod span_filter;
mod span_limits;
mod tail_settings;

pub(crate) use left_out::LeftOutSpans;
pub(crate) use limit_settings::LimitSettings;
pub(crate) use recent_rollouts::RecentRollouts;
pub(crate) use sampling_settings::{AlwaysStored, SamplingSettings, SamplingSettingsError};
pub(crate) use span_filter::{FilteredSpans, SpanFilter};
pub(crate) use tail_settings::ParsedTailRule;

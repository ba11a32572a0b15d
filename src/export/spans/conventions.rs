//! The conventions by which exported spans name what they hold of calls.

use super::open_inference::add_open_inference;
use crate::trace::Span;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// Names of attributes in an export over OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
pub(crate) enum AttributeConventions {
    /// As stored: OpenTelemetry's GenAI conventions
    #[default]
    #[serde(rename = "gen_ai")]
    #[value(name = "gen_ai")]
    GenAi,
    /// Those of OpenInference too, which Phoenix and Arize read
    #[serde(rename = "openinference")]
    #[value(name = "openinference")]
    OpenInference,
}

impl AttributeConventions {
    /// Spans as they are exported.
    pub(crate) fn of(self, spans: &[Span]) -> Cow<'_, [Span]> {
        match self {
            Self::GenAi => Cow::Borrowed(spans),
            Self::OpenInference => {
                let mut spans = spans.to_vec();
                spans.iter_mut().for_each(add_open_inference);
                Cow::Owned(spans)
            }
        }
    }

    /// The same of spans that others share.
    pub(crate) fn of_shared(self, spans: &[Arc<Span>]) -> Cow<'_, [Arc<Span>]> {
        match self {
            Self::GenAi => Cow::Borrowed(spans),
            Self::OpenInference => {
                let mut spans = spans.to_vec();
                spans.iter_mut().map(Arc::make_mut).for_each(add_open_inference);
                Cow::Owned(spans)
            }
        }
    }
}

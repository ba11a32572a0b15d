//! The parts that forwarding needs. What it does with them is in `handle` and `exchange_start`.

use super::interceptor::RequestInterceptor;
use super::settings::TraceSettings;
use super::tokens::TokenSettings;
use crate::capture::{Memory, Recorder};
use crate::shared_state::{DetectedEngines, SequenceAllocator};
use crate::trace::SamplerArrays;
use crate::upstream::{Origin, Upstream};
use std::sync::Arc;

/// Forwards requests and records them. Clones share everything.
#[derive(Clone)]
pub(crate) struct Forwarder {
    pub(super) upstream: Upstream,
    pub(super) recorder: Recorder,
    pub(super) sequences: SequenceAllocator,
    pub(super) trace: Arc<TraceSettings>,
    pub(super) tokens: Arc<TokenSettings>,
    pub(super) engines: DetectedEngines,
    pub(super) interceptor: Option<Arc<dyn RequestInterceptor>>,
}

impl Forwarder {
    /// A forwarder without an interceptor.
    pub(crate) fn new(
        upstream: Upstream,
        recorder: Recorder,
        sequences: SequenceAllocator,
        trace: TraceSettings,
        tokens: TokenSettings,
        engines: DetectedEngines,
    ) -> Self {
        let (trace, tokens) = (Arc::new(trace), Arc::new(tokens));
        Self { upstream, recorder, sequences, trace, tokens, engines, interceptor: None }
    }

    /// The same with an interceptor.
    #[must_use]
    pub(crate) fn with_interceptor(self, interceptor: Arc<dyn RequestInterceptor>) -> Self {
        Self { interceptor: Some(interceptor), ..self }
    }

    /// True when requests to `origin` may be intercepted: it need not be reachable then.
    pub(crate) fn may_intercept(&self, origin: &Origin) -> bool {
        self.interceptor.as_ref().is_some_and(|interceptor| interceptor.may_intercept(origin))
    }

    /// The memory of everything in flight.
    pub(crate) fn memory(&self) -> &Memory {
        self.recorder.memory()
    }

    /// The arrays of samplers that are requested and recorded.
    pub(crate) fn sampler_arrays(&self) -> SamplerArrays {
        self.recorder.settings().sampler_arrays()
    }

    /// What is known of endpoints.
    pub(crate) fn engines(&self) -> &DetectedEngines {
        &self.engines
    }

    /// The client that sends to endpoints.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }
}

//! Sends a call to backends: to one, and to another or to the same again while nothing of a response has reached the agent.

use super::admission::NotAdmitted;
use super::backend_request::BackendRequest;
use super::backend_selection::{contains, select};
use super::backend_try::{BackendTry, TryFailure};
use super::backends::Backend;
use super::call::GatewayCall;
use super::deliver::deliver;
use super::keepalive::with_idle_keepalives;
use super::models::no_backend;
use super::response_bodies::CallPermits;
use super::service::{Gateway, increment};
use super::settings::GatewaySettings;
use crate::error::ProxyError;
use crate::upstream::Body;
use crate::util::in_flight::InFlightPermit;
use backon::{BackoffBuilder, ExponentialBuilder};
use http::Response;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Gateway {
    /// Sends a call, and returns the response to the agent. Between tries the call may have to pass the pause gate again.
    pub(super) async fn send(
        &self,
        call: &GatewayCall,
        mut gate_permit: InFlightPermit,
    ) -> Result<Response<Body>, NotAdmitted> {
        let (mut tried, mut number, mut unreached) = (Vec::new(), 0, 0);
        // The backends that rejected fields that only Tracewire asks for, and those fields: they get the call without any.
        let mut refused_injection: Vec<(Arc<Backend>, Vec<&'static str>)> = Vec::new();
        let mut waits = retry_waits(self.settings());
        loop {
            let backend = self.choose_backend(call, &mut tried)?;
            self.check_staleness(call, &backend)?;
            self.first_probe(&backend).await;
            let request = BackendRequest::new(
                call,
                &backend,
                self.settings(),
                self.forwarder().sampler_arrays(),
                self.forwarder().memory(),
            )?;
            if number == 0 && !request.dropped.is_empty() {
                increment(&self.counters().reduced);
            }
            let is_this = |(refusing, _): &&(Arc<Backend>, Vec<&'static str>)| Arc::ptr_eq(refusing, &backend);
            let rejected = refused_injection.iter().find(is_this).map(|(_, rejected)| rejected.clone());
            let request = if rejected.is_none() { request } else { request.without_injection() };
            let version = backend.version();
            let leaves_untried = self
                .backends()
                .of(&call.model)
                .iter()
                .any(|other| !Arc::ptr_eq(other, &backend) && !contains(&tried, other));
            let started = Instant::now();
            let one_try = BackendTry { call, backend, request, number, unreached, leaves_untried, version, started };
            let backend_permit = one_try.backend.enter();
            let failure = match self.try_backend(&one_try).await {
                Ok(response) => {
                    let BackendTry { backend, request, .. } = one_try;
                    if !response.status().is_server_error() {
                        backend.on_success();
                    }
                    if let Some(rejected) = rejected.filter(|_| response.status().is_success()) {
                        backend.reject_fields(&rejected);
                        self.forwarder().engines().count_rejection();
                    }
                    let permits = CallPermits { _gate: gate_permit, _backend: backend_permit };
                    let response = deliver(call, request, response, self.forwarder().memory(), permits).await;
                    return Ok(with_idle_keepalives(
                        response,
                        call.error_format.keepalive(),
                        self.settings().keepalive,
                    ));
                }
                Err(failure) => failure,
            };
            drop(backend_permit);
            match failure {
                TryFailure::InjectionRefused(rejected) => {
                    refused_injection.push((one_try.backend, rejected));
                    continue;
                }
                TryFailure::Final(error) => return Err(error.into()),
                TryFailure::Retryable { retry_after } => {
                    let wait = waits.next().unwrap_or_default();
                    tried.push(one_try.backend);
                    if !self.has_untried_backend(call, &tried) {
                        tokio::time::sleep(retry_after.unwrap_or(wait)).await;
                    }
                }
                TryFailure::Unreachable => {
                    let wait = waits.next().unwrap_or_default().max(MIN_UNREACHABLE_WAIT);
                    tried.push(one_try.backend);
                    unreached += 1;
                    if !self.has_untried_backend(call, &tried) {
                        tokio::time::sleep(self.unreachable_wait_left(call).map_or(wait, |left| wait.min(left))).await;
                    }
                }
            }
            number += 1;
            if self.gate().holds_calls() {
                // A trainer that waits until no call is in flight must not wait for this one.
                drop(gate_permit);
                gate_permit = self.pass_gate(call).await?;
            }
        }
    }

    /// The time until the last backend that can't be reached is given up, so that the last try is then. `None`: there is none.
    fn unreachable_wait_left(&self, call: &GatewayCall) -> Option<Duration> {
        let wait = self.settings().unreachable_wait;
        let backends = self.backends().of(&call.model);
        let left = backends.iter().filter_map(|backend| Some(wait.saturating_sub(backend.unreachable_for()?))).max();
        left.filter(|left| !left.is_zero())
    }

    /// True if there is a healthy backend that was not tried.
    fn has_untried_backend(&self, call: &GatewayCall, tried: &[Arc<Backend>]) -> bool {
        self.backends().of(&call.model).iter().any(|backend| backend.is_healthy() && !contains(tried, backend))
    }

    /// The backend for the next try. When all were tried, they are tried again.
    fn choose_backend(&self, call: &GatewayCall, tried: &mut Vec<Arc<Backend>>) -> Result<Arc<Backend>, ProxyError> {
        let backends = self.backends().of(&call.model);
        let key = call.exchange.identity.rollout_id.as_str();
        if let Some(backend) = select(key, &backends, tried) {
            return Ok(backend);
        }
        tried.clear();
        select(key, &backends, tried).ok_or_else(|| no_backend(&call.model))
    }
}

/// The waits before further tries. They double up to the limit, and vary by a quarter so that calls that failed together are not
/// repeated together. (backon's own jitter would exceed the limit.)
fn retry_waits(settings: &GatewaySettings) -> impl Iterator<Item = Duration> + use<> {
    let max_wait = settings.retry_wait_max;
    let waits = ExponentialBuilder::new()
        .with_min_delay(settings.retry_wait)
        .with_max_delay(max_wait)
        .with_factor(2.0)
        .without_max_times()
        .build();
    waits.map(move |wait| wait.min(max_wait).mul_f64(0.75 + 0.5 * fastrand::f64()))
}

/// The shortest wait after a try that reached no backend: their number is limited by time only.
const MIN_UNREACHABLE_WAIT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_vary() {
        let settings = GatewaySettings {
            retry_wait: Duration::from_millis(500),
            retry_wait_max: Duration::from_secs(3),
            ..GatewaySettings::default()
        };
        let waits: Vec<Duration> = retry_waits(&settings).take(6).collect();
        for (wait, expected_ms) in waits.iter().zip([500, 1000, 2000, 3000, 3000, 3000]) {
            let expected = Duration::from_millis(expected_ms);
            assert!(*wait >= expected.mul_f64(0.75) && *wait <= expected.mul_f64(1.25), "{waits:?}");
        }
        let none = GatewaySettings { retry_wait: Duration::ZERO, ..settings };
        assert_eq!(retry_waits(&none).nth(40), Some(Duration::ZERO));
    }
}

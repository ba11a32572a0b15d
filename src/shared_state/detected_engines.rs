//! Which engine serves at which endpoint, as detected from its responses: later requests ask it for token ids. And which of
//! the fields that ask for them an endpoint rejects: those are not added again while the process runs.
//!
//! Bounded: further endpoints are not noted, so nothing is added to their requests.

use crate::llm::engine::Engine;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Engines by host and port.
#[derive(Clone, Debug, Default)]
pub(crate) struct DetectedEngines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    endpoints: RwLock<HashMap<(String, u16), Endpoint>>,
    rejections: AtomicU64,
}

/// What is known of an endpoint.
#[derive(Debug, Default)]
struct Endpoint {
    engine: Option<Engine>,
    rejected: Vec<&'static str>,
}

impl DetectedEngines {
    /// The engine at an endpoint. None if it was not detected.
    pub(crate) fn at(&self, host: &str, port: u16) -> Option<Engine> {
        self.read(host, port, |endpoint| endpoint.engine).flatten()
    }

    /// The fields that an endpoint rejects.
    pub(crate) fn rejected_at(&self, host: &str, port: u16) -> Vec<&'static str> {
        self.read(host, port, |endpoint| endpoint.rejected.clone()).unwrap_or_default()
    }

    /// Notes the engine of a response. The first one that was detected at an endpoint stays.
    pub(crate) fn detected(&self, host: &str, port: u16, engine: Engine) {
        if self.at(host, port).is_some() {
            return;
        }
        self.change(host, port, |endpoint| {
            endpoint.engine = Some(engine);
            tracing::info!(host, port, ?engine, "engine detected; its token ids are requested from now on");
        });
    }

    /// Notes that an endpoint rejected these fields, and took the request without them.
    pub(crate) fn rejected(&self, host: &str, port: u16, fields: &[&'static str]) {
        self.change(host, port, |endpoint| {
            let new: Vec<_> = fields.iter().copied().filter(|field| !endpoint.rejected.contains(field)).collect();
            if !new.is_empty() {
                tracing::warn!(host, port, fields = ?new, "the endpoint rejects these fields; they are not added again");
                self.count_rejection();
            }
            endpoint.rejected.extend(new);
        });
    }

    /// Counts an endpoint that rejected added fields.
    pub(crate) fn count_rejection(&self) {
        self.0.rejections.fetch_add(1, Ordering::Relaxed);
    }

    /// How often an endpoint rejected added fields, each field once.
    pub(crate) fn rejections(&self) -> &AtomicU64 {
        &self.0.rejections
    }

    fn read<T>(&self, host: &str, port: u16, read: impl FnOnce(&Endpoint) -> T) -> Option<T> {
        let endpoints = self.0.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        if endpoints.is_empty() { None } else { endpoints.get(&(host.to_owned(), port)).map(read) }
    }

    fn change(&self, host: &str, port: u16, change: impl FnOnce(&mut Endpoint)) {
        let mut endpoints = self.0.endpoints.write().unwrap_or_else(PoisonError::into_inner);
        let key = (host.to_owned(), port);
        if endpoints.len() < MAX_ENDPOINTS || endpoints.contains_key(&key) {
            change(endpoints.entry(key).or_default());
        }
    }
}

const MAX_ENDPOINTS: usize = 4096;

//! Which engine serves at which endpoint, as detected from its responses: later requests ask it for token ids. And which of
//! the fields that ask for them an endpoint rejects: those are not added again while the process runs.
//!
//! What an earlier process knew holds until a response shows something else. Bounded: further endpoints are not noted, so
//! nothing is added to their requests.

use crate::llm::engine::{Engine, added_field};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::{CancellationToken, DropGuard};

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
    /// What it knows is from an earlier process.
    is_remembered: bool,
    /// Cancelled when the first look at it has ended; `None`: there was none.
    first_look: Option<CancellationToken>,
}

/// What a process knows of an endpoint, for a later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownEndpoint {
    /// Its host, in lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What serves there. `None`: only rejections are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// The fields that it rejects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<String>,
}

/// Whether a request must wait until its endpoint is known.
#[derive(Debug)]
pub(crate) enum FirstLook {
    /// No: it is known, or nothing more will be known soon.
    Done,
    /// It is the first request to the endpoint. Its sender looks; the look has ended when this is dropped.
    Ours(DropGuard),
    /// Another request's sender looks. Cancelled when that has ended.
    Others(CancellationToken),
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

    /// Notes the engine of a response. The first one that this process detects at an endpoint stays.
    pub(crate) fn detected(&self, host: &str, port: u16, engine: Engine) {
        if self.read(host, port, |endpoint| endpoint.engine.is_some() && !endpoint.is_remembered) == Some(true) {
            return;
        }
        self.change(host, port, |endpoint| {
            endpoint.is_remembered = false;
            if endpoint.engine == Some(engine) {
                return;
            }
            if endpoint.engine.replace(engine).is_some() {
                // Another server rejected them.
                endpoint.rejected.clear();
            }
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
            endpoint.is_remembered = false;
        });
    }

    /// Begins the first look at an endpoint, unless its engine is known or another look was begun.
    pub(crate) fn first_look(&self, host: &str, port: u16) -> FirstLook {
        let is_over = |endpoint: &Endpoint| {
            let ended = endpoint.first_look.as_ref().is_some_and(CancellationToken::is_cancelled);
            endpoint.engine.is_some() || ended
        };
        if self.read(host, port, is_over) == Some(true) {
            return FirstLook::Done;
        }
        let mut look = FirstLook::Done;
        self.change(host, port, |endpoint| {
            look = match &endpoint.first_look {
                Some(begun) => FirstLook::Others(begun.clone()),
                None => FirstLook::Ours(endpoint.first_look.insert(CancellationToken::new()).clone().drop_guard()),
            };
        });
        look
    }

    /// Takes over what an earlier process knew.
    pub(crate) fn remember(&self, known: &[KnownEndpoint]) {
        for KnownEndpoint { host, port, engine, rejected } in known {
            self.change(host, *port, |endpoint| {
                endpoint.engine = *engine;
                endpoint.rejected = rejected.iter().filter_map(|name| added_field(name)).collect();
                endpoint.is_remembered = true;
            });
        }
    }

    /// What this process itself has learned.
    pub(crate) fn learned(&self) -> Vec<KnownEndpoint> {
        let endpoints = self.0.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        let learned = endpoints.iter().filter(|(_, endpoint)| {
            !endpoint.is_remembered && (endpoint.engine.is_some() || !endpoint.rejected.is_empty())
        });
        let known = |((host, port), endpoint): (&(String, u16), &Endpoint)| KnownEndpoint {
            host: host.clone(),
            port: *port,
            engine: endpoint.engine,
            rejected: endpoint.rejected.iter().map(|name| (*name).to_owned()).collect(),
        };
        learned.map(known).collect()
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

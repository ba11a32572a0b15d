//! What `run` learned of endpoints, kept in the data folder for the next `run`: each has a process of its own.
//!
//! Bound: [`MAX_ENDPOINTS`], those that were learned last, for [`MAX_AGE`]. A file that can't be read, or that other users can
//! change, counts as none. Of several processes that write at once, the last one's entries may be alone.

use super::stores::home;
use crate::files::{Owner, check_unchangeable, create_private_folder};
use crate::shared_state::{DetectedEngines, KnownEndpoint};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// An endpoint, and when it was learned.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    endpoint: KnownEndpoint,
    /// Seconds since 1970.
    learned_at: u64,
}

/// How long what a process learns of endpoints is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineMemory {
    /// As long as the process runs.
    Process,
    /// For later processes, in the data folder.
    DataFolder,
}

impl EngineMemory {
    /// What is known at the start.
    pub(super) fn load(self) -> DetectedEngines {
        let engines = DetectedEngines::default();
        if self == Self::DataFolder {
            let known: Vec<KnownEndpoint> = read(&home().join(FILE)).into_iter().map(|entry| entry.endpoint).collect();
            engines.remember(&known);
        }
        engines
    }

    /// Keeps what the process has learned.
    pub(super) fn keep(self, engines: &DetectedEngines) {
        let learned = engines.learned();
        if self == Self::Process || learned.is_empty() {
            return;
        }
        let path = home().join(FILE);
        if let Err(error) = write(&path, learned) {
            tracing::warn!(%error, path = %path.display(), "what was learned of endpoints can't be kept");
        }
    }
}

fn read(path: &Path) -> Vec<Entry> {
    if !path.exists() {
        return Vec::new();
    }
    if let Err(error) = check_unchangeable(path, Owner::ThisUser) {
        tracing::warn!(%error, "what was learned of endpoints is not used");
        return Vec::new();
    }
    let entries: Option<Vec<Entry>> = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let now = seconds_now();
    let mut entries = entries.unwrap_or_default();
    entries.retain(|entry| now.saturating_sub(entry.learned_at) < MAX_AGE.as_secs());
    entries
}

fn write(path: &Path, learned: Vec<KnownEndpoint>) -> io::Result<()> {
    let learned_at = seconds_now();
    let mut entries: Vec<Entry> = learned.into_iter().map(|endpoint| Entry { endpoint, learned_at }).collect();
    let is_new = |old: &Entry| {
        let same = |new: &Entry| (&new.endpoint.host, new.endpoint.port) == (&old.endpoint.host, old.endpoint.port);
        !entries.iter().any(same)
    };
    let older: Vec<Entry> = read(path).into_iter().filter(is_new).collect();
    entries.extend(older);
    entries.truncate(MAX_ENDPOINTS);
    let folder = path.parent().unwrap_or(Path::new("."));
    create_private_folder(folder)?;
    // Only its owner can read it.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(&entries)?)?;
    file.persist(path)?;
    Ok(())
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

const FILE: &str = "endpoints.json";
const MAX_ENDPOINTS: usize = 1024;
/// Ports are used again: another server may be there tomorrow.
const MAX_AGE: Duration = Duration::from_hours(24);

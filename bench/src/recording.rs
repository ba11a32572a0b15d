//! What Tracewire records in a measurement: each step of the recording left out is an ablation.

use std::path::Path;

/// What is recorded, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// Headers, bodies and LLM calls, to SQLite.
    Everything,
    /// The same; the end of each response waits for the commit of its span.
    EverythingCommitted,
    /// The same as [`Recording::Everything`], to memory.
    InMemory,
    /// The default settings: LLM calls without headers and bodies.
    Defaults,
    /// Neither LLM calls nor headers and bodies.
    WithoutCalls,
    /// Nothing: every host is left out.
    Nothing,
}

impl Recording {
    /// All, in the order of the tables.
    pub const ALL: [Self; 6] = [
        Self::EverythingCommitted,
        Self::Everything,
        Self::InMemory,
        Self::Defaults,
        Self::WithoutCalls,
        Self::Nothing,
    ];

    /// The name in tables, of this name of a program.
    pub fn label(self, program: &str) -> String {
        let end = match self {
            Self::Everything => "",
            Self::EverythingCommitted => "-commit",
            Self::InMemory => "-memory",
            Self::Defaults => "-defaults",
            Self::WithoutCalls => "-no-calls",
            Self::Nothing => "-nothing",
        };
        format!("{program}{end}")
    }

    /// True if it is measured only to compare with [`Recording::Everything`].
    pub fn is_ablation(self) -> bool {
        !matches!(self, Self::Everything | Self::EverythingCommitted)
    }

    /// Its settings, with dotted keys: others may follow.
    pub fn settings(self) -> &'static str {
        match self {
            Self::Everything | Self::InMemory => "capture.include_headers = true\ncapture.include_bodies = true\n",
            Self::EverythingCommitted => {
                "capture.include_headers = true\ncapture.include_bodies = true\ncapture.durability = \"commit\"\n"
            }
            Self::Defaults => "",
            Self::WithoutCalls => "capture.llm_content = false\n",
            Self::Nothing => "capture.skip_hosts = [\"*\"]\n",
        }
    }

    /// Where the store is, for a program with this data folder.
    pub fn store(self, place: &Path) -> String {
        match self {
            Self::InMemory => "memory:".to_owned(),
            _ => place.join("traces.db").display().to_string(),
        }
    }
}

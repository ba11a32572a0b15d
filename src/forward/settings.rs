//! `[trace]` of the settings.

use serde::{Deserialize, Serialize};

/// `[trace]` of the settings: what happens to `traceparent`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TraceSettings {
    /// Hosts, as patterns, to which `traceparent` is sent with our span as parent. To others it is sent as it came.
    #[serde(deserialize_with = "crate::util::host_patterns::deserialize")]
    pub propagate_hosts: Vec<String>,
}

//! The metrics of the process's parts.

use prometheus_client::registry::Registry;
use std::sync::Arc;

/// Adds the current values of the process's parts to a registry. `app` provides it, because this module does not know
/// the other parts.
pub(crate) type MetricsSource = Arc<dyn Fn(&mut Registry) + Send + Sync>;

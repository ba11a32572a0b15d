//! What a trace is started with.

use super::baggage::{ATTEMPT_ID, Baggage, ROLLOUT_ID};
use super::error::{Result, TracerError};
use crate::trace::{AttemptId, Attributes, RolloutId, Value, check_id};
use crate::wire::traceparent::TraceParent;

/// The name of a trace, and where its spans belong. A text is the options of a trace with this name and a new rollout.
///
/// ```
/// use tracewire::tracer::TraceOptions;
///
/// let options = TraceOptions::new("solve").rollout("ro-7").attempt("at-1").attribute("task.difficulty", 3);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
pub struct TraceOptions {
    pub(super) name: String,
    pub(super) rollout: Option<String>,
    pub(super) attempt: Option<String>,
    pub(super) parent: Option<TraceParent>,
    pub(super) baggage: Baggage,
    pub(super) attributes: Attributes,
}

impl TraceOptions {
    /// A trace with a root span of this name, in a new rollout.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Puts the spans into a rollout. It is created if it does not exist.
    pub fn rollout(mut self, id: impl Into<String>) -> Self {
        self.rollout = Some(id.into());
        self
    }

    /// Puts the spans into an attempt of the rollout. Without it, they belong to the rollout's default attempt.
    pub fn attempt(mut self, id: impl Into<String>) -> Self {
        self.attempt = Some(id.into());
        self
    }

    /// Adds an attribute to the root span.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Adds entries to the baggage. They replace entries with the same keys.
    pub fn baggage(mut self, baggage: Baggage) -> Self {
        self.baggage = self.baggage.merged(&baggage);
        self
    }

    /// Continues the trace of another service, from the headers or message fields `traceparent` and `baggage`. Rollout and
    /// attempt come from the baggage unless they are set here. What is invalid is ignored, as the specification requires: a
    /// header of another service can't stop this one.
    ///
    /// ```
    /// use tracewire::tracer::TraceOptions;
    ///
    /// let headers = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("baggage", "agentlightning.rollout_id=ro-7")];
    /// let options = TraceOptions::new("search service").remote_parent(headers);
    /// # let _ = options;
    /// ```
    pub fn remote_parent<N: AsRef<str>, V: AsRef<str>>(mut self, headers: impl IntoIterator<Item = (N, V)>) -> Self {
        for (name, value) in headers {
            match name.as_ref().to_ascii_lowercase().as_str() {
                "traceparent" => self.parent = TraceParent::parse(value.as_ref()),
                // What is set here has precedence.
                "baggage" => self.baggage = Baggage::parse(value.as_ref()).merged(&self.baggage),
                _ => {}
            }
        }
        self
    }

    /// Continues the trace of the process that started this one: `TRACEPARENT` and `BAGGAGE`, and the rollout and attempt that
    /// `tracewire run` and `tracewire worker` set (`TRACEWIRE_ROLLOUT_ID`, `TRACEWIRE_ATTEMPT_ID`). Without `TRACEPARENT`, the
    /// parent is the root span of that attempt. The attempt is ignored if another rollout is set here.
    pub fn from_environment(self) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let headers = [("traceparent", "TRACEPARENT"), ("baggage", "BAGGAGE")];
        let mut options =
            self.remote_parent(headers.into_iter().filter_map(|(header, name)| Some((header, variable(name)?))));
        let rollout = variable("TRACEWIRE_ROLLOUT_ID");
        // The attempt of the environment belongs to its rollout.
        if options.attempt.is_none() && (options.rollout.is_none() || options.rollout == rollout) {
            options.attempt = variable("TRACEWIRE_ATTEMPT_ID");
        }
        options.rollout = options.rollout.or(rollout);
        if let (None, Some(rollout), Some(attempt)) = (options.parent, &options.rollout, &options.attempt) {
            options.parent = Some(TraceParent::of_attempt_root(&rollout.as_str().into(), &attempt.as_str().into()));
        }
        options
    }

    /// The rollout and the attempt: named here, else by the baggage, else new ones.
    pub(super) fn ids(&self) -> Result<(RolloutId, AttemptId)> {
        let from_baggage = |key| self.baggage.get(key).filter(|id| check_id(id).is_ok());
        let rollout_of_baggage = from_baggage(ROLLOUT_ID);
        let named = checked("rollout", self.rollout.as_deref())?.or(rollout_of_baggage);
        // The attempt of the baggage belongs to its rollout.
        let attempt_of_baggage = from_baggage(ATTEMPT_ID).filter(|_| named == rollout_of_baggage);
        let attempt = checked("attempt", self.attempt.as_deref())?.or(attempt_of_baggage);
        let rollout = named.map_or_else(|| RolloutId::from_random(fastrand::u64(..)), RolloutId::from);
        let attempt = match (attempt, named) {
            (Some(id), _) => AttemptId::from(id),
            (None, Some(_)) => AttemptId::default_of(&rollout),
            (None, None) => AttemptId::from_random(fastrand::u32(..)),
        };
        Ok((rollout, attempt))
    }
}

fn checked<'a>(name: &'static str, id: Option<&'a str>) -> Result<Option<&'a str>> {
    id.map(check_id).transpose().map_err(|error| TracerError::InvalidId { name, problem: error.to_string() })?;
    Ok(id)
}

impl From<&str> for TraceOptions {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for TraceOptions {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

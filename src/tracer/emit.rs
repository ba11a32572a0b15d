//! Rewards, messages, objects, annotations and exceptions, as the spans that Agent Lightning's emitters write.
//!
//! The functions of [`spans`] only describe the span, to which tags, a link and other attributes can be added; the others
//! record it in the active trace.
//!
//! ```
//! use tracewire::tracer::{DummyTracer, Tracer, TracerError, create_span, emit::spans};
//!
//! let tracer = DummyTracer::new();
//! tracer.init_worker(0)?;
//! let _trace = tracer.trace_guard("solve")?;
//! let step = create_span("step")?;
//! create_span(spans::rewards([("style", 0.5)])?.tags(["judge"]).about("span_id", step.span_id.as_str()))?;
//! # Ok::<(), TracerError>(())
//! ```

use super::contract::create_span;
use super::error::Result;
use super::exception::Exception;
use crate::trace::Span;
use serde::Serialize;
use std::fmt::Display;
use std::sync::Arc;

/// Records the primary reward of the attempt.
///
/// ```
/// use tracewire::tracer::{DummyTracer, Tracer, TracerError, emit};
///
/// let tracer = DummyTracer::new();
/// tracer.init_worker(0)?;
/// let _trace = tracer.trace_guard("solve")?;
/// let span = emit::reward(0.75)?;
/// assert_eq!(span.attributes["agentlightning.reward.0.value"].as_float(), Some(0.75));
/// # Ok::<(), TracerError>(())
/// ```
pub fn reward(value: f64) -> Result<Arc<Span>> {
    rewards([("primary", value)])
}

/// Records rewards of several dimensions. The first one is the primary reward, which trainers use.
pub fn rewards<N: AsRef<str>>(rewards: impl IntoIterator<Item = (N, f64)>) -> Result<Arc<Span>> {
    create_span(spans::rewards(rewards)?)
}

/// Records a text for people: a note or a line of a log.
pub fn message(text: &str) -> Result<Arc<Span>> {
    create_span(spans::message(text))
}

/// Records a value as JSON. Texts, numbers and booleans are recorded as their text, with the name of their type in Python.
pub fn object(value: &impl Serialize) -> Result<Arc<Span>> {
    create_span(spans::object(&serde_json::to_value(value)?))
}

/// Records attributes of the rollout. Objects are flattened: `{"a": {"b": 1}}` becomes `a.b`.
///
/// ```
/// # use tracewire::tracer::{DummyTracer, Tracer, TracerError};
/// use serde_json::json;
/// use tracewire::tracer::emit;
///
/// # let tracer = DummyTracer::new();
/// # tracer.init_worker(0)?;
/// # let _trace = tracer.trace_guard("solve")?;
/// let span = emit::annotation(&json!({ "tests": { "passed": 7, "failed": ["a", "b"] } }))?;
/// assert_eq!(span.attributes["tests.passed"].as_int(), Some(7));
/// # Ok::<(), TracerError>(())
/// ```
pub fn annotation(attributes: &impl Serialize) -> Result<Arc<Span>> {
    create_span(spans::annotation(&serde_json::to_value(attributes)?)?)
}

/// Records an error that was handled. The span itself succeeded; [`Operation::record_exception`](super::Operation) marks one as
/// failed.
pub fn exception<E: Display + ?Sized>(error: &E) -> Result<Arc<Span>> {
    create_span(spans::exception(&Exception::of(error)))
}

/// The spans of the emitters, not recorded yet.
pub mod spans {
    use crate::trace::semconv as names;
    use crate::trace::{Attributes, StatusCode};
    use crate::tracer::error::{Result, TracerError};
    use crate::tracer::exception::{Exception, exception_attributes};
    pub use crate::tracer::flattened::flattened;
    use crate::tracer::new_span::NewSpan;
    use serde_json::Value as JsonValue;

    /// Rewards by name, the primary one first. Each must be a finite number.
    pub fn rewards<N: AsRef<str>>(rewards: impl IntoIterator<Item = (N, f64)>) -> Result<NewSpan> {
        let mut attributes = Attributes::default();
        for (at, (name, value)) in rewards.into_iter().enumerate() {
            let prefix = format!("{}.{at}", names::REWARD_PREFIX);
            if !value.is_finite() {
                let problem = format!("the reward `{}` is {value}; use a finite number", name.as_ref());
                return Err(TracerError::InvalidAttribute { name: format!("{prefix}.value"), problem });
            }
            attributes.insert(format!("{prefix}.name"), name.as_ref().into());
            attributes.insert(format!("{prefix}.value"), value.into());
        }
        if attributes.is_empty() {
            let problem = "there is no reward; name at least one".to_owned();
            return Err(TracerError::InvalidAttribute { name: names::REWARD_PREFIX.to_owned(), problem });
        }
        Ok(ok("agentlightning.annotation", attributes))
    }

    /// A text. Its status is unset, as that of Agent Lightning's.
    pub fn message(text: &str) -> NewSpan {
        NewSpan::new("agentlightning.message").attribute(names::MESSAGE_BODY, text)
    }

    /// A value as JSON, or the text of a scalar with Python's name of its type.
    pub fn object(value: &JsonValue) -> NewSpan {
        let literal = |kind: &str, text: String| [(names::OBJECT_TYPE, kind.to_owned()), (names::OBJECT_LITERAL, text)];
        let json = |kind: &str| [(names::OBJECT_TYPE, kind.to_owned()), (names::OBJECT_JSON, value.to_string())];
        let attributes = match value {
            JsonValue::String(text) => literal("str", text.clone()),
            JsonValue::Bool(true) => literal("bool", "True".to_owned()),
            JsonValue::Bool(false) => literal("bool", "False".to_owned()),
            JsonValue::Number(number) if number.is_f64() => literal("float", number.to_string()),
            JsonValue::Number(number) => literal("int", number.to_string()),
            JsonValue::Null => json("NoneType"),
            JsonValue::Array(_) => json("list"),
            JsonValue::Object(_) => json("dict"),
        };
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        ok("agentlightning.object", attributes.collect())
    }

    /// Attributes from a JSON object, flattened.
    pub fn annotation(annotation: &JsonValue) -> Result<NewSpan> {
        Ok(ok("agentlightning.annotation", flattened(annotation)?))
    }

    /// An exception.
    pub fn exception(exception: &Exception) -> NewSpan {
        ok("agentlightning.exception", exception_attributes(exception))
    }

    fn ok(name: &str, attributes: Attributes) -> NewSpan {
        NewSpan::new(name).attributes(attributes).status(StatusCode::Ok)
    }
}

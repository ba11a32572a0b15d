//! What a span or an operation is created with.

use crate::trace::semconv as names;
use crate::trace::{Attributes, SpanKind, Status, StatusCode, Timestamp, Value};

/// The name, attributes and times of a new span. A text is a span with this name.
///
/// ```
/// use tracewire::tracer::NewSpan;
///
/// let span = NewSpan::new("cache hit").attribute("cache.key", "user 7").attribute("cache.age_s", 2.5);
/// # let _ = span;
/// ```
#[derive(Clone, Debug)]
pub struct NewSpan {
    pub(super) name: String,
    pub(super) kind: SpanKind,
    pub(super) attributes: Attributes,
    pub(super) start_time: Option<Timestamp>,
    pub(super) status: Status,
}

impl NewSpan {
    /// A span with this name, of kind `Internal`, that starts now.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: SpanKind::Internal,
            attributes: Attributes::default(),
            start_time: None,
            status: Status::default(),
        }
    }

    /// Sets the kind.
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds an attribute.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Adds attributes.
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.attributes.extend(attributes);
        self
    }

    /// Adds tags, as Agent Lightning names them: `agentlightning.tag.0` and so on.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        let new = tags.into_iter().enumerate();
        self.attributes.extend(new.map(|(at, tag)| (format!("{}.{at}", names::TAG_PREFIX), Value::String(tag.into()))));
        self
    }

    /// Links the span to those with this value of an attribute, as Agent Lightning does it. The keys `trace_id` and `span_id`
    /// mean the span's own ids: an annotation with a link to `span_id` is about that span. Replaces an earlier link.
    pub fn about(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let link = [("key_match", key.into()), ("value_match", value.into())];
        let prefix = names::LINK_PREFIX;
        self.attributes.extend(link.map(|(part, text)| (format!("{prefix}.0.{part}"), Value::String(text))));
        self
    }

    /// Sets the start; a span of [`create_span`](super::create_span) ends then too.
    pub fn start_time(mut self, start_time: Timestamp) -> Self {
        self.start_time = Some(start_time);
        self
    }

    /// Sets the status. The default is `Unset`.
    pub fn status(mut self, status_code: StatusCode) -> Self {
        self.status.status_code = status_code;
        self
    }

    /// The name, the attributes and the status.
    pub(crate) fn into_parts(self) -> (String, Attributes, Status) {
        (self.name, self.attributes, self.status)
    }
}

impl From<&str> for NewSpan {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for NewSpan {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

//! The endpoints of an API: their paths, what they do, and what tells their requests from those of another API.
//!
//! Matching a path costs no more than its length; it allocates only for a model's name.

use crate::llm::operation::Operation;
use crate::wire::json::Json;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// One endpoint. Paths may have any prefix, such as a version or a provider's `/openai/deployments/d`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    /// The end of the path. At most one `{model}` stands for a model's name, or for the id of a response.
    pub pattern: &'static str,
    /// What it does.
    pub operation: Operation,
    /// Whether its responses are streams.
    pub streaming: Streaming,
    /// Fields that the body of a request must have, other than null: one of each group.
    pub needs: &'static [&'static [&'static str]],
    /// Whether another API has requests with this path.
    pub sharing: Sharing,
    /// What Tracewire does with its calls.
    pub support: Support,
}

/// What decides whether a response is a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streaming {
    /// The field `stream` of the request's body.
    ByBody,
    /// The endpoint always answers with a stream.
    Always,
    /// The endpoint never does.
    Never,
}

/// Whether a path belongs to one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// The path is enough to know the API.
    Own,
    /// The path is another API's as well. It counts as that one's where the body is not known.
    WithAnother,
}

/// What Tracewire does with the calls of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    /// The gateway serves them, and the API's format reads them.
    ServedAndRead,
    /// The format reads those that pass; the gateway serves none.
    Read,
    /// The gateway serves them; no format reads them.
    Served,
}

impl Endpoint {
    /// An endpoint that streams if the body says so, and that is known by its path.
    const fn new(pattern: &'static str, operation: Operation, support: Support) -> Self {
        Self { pattern, operation, streaming: Streaming::ByBody, needs: &[], sharing: Sharing::Own, support }
    }

    /// An endpoint that the gateway serves and the API's format reads.
    pub(crate) const fn served(pattern: &'static str, operation: Operation) -> Self {
        Self::new(pattern, operation, Support::ServedAndRead)
    }

    /// An endpoint that is only read.
    pub(crate) const fn read_only(pattern: &'static str, operation: Operation) -> Self {
        Self::new(pattern, operation, Support::Read)
    }

    /// An endpoint that is only served.
    pub(crate) const fn served_only(pattern: &'static str, operation: Operation) -> Self {
        Self::new(pattern, operation, Support::Served)
    }

    /// With fields that a request's body must have.
    pub(crate) const fn needs(self, needs: &'static [&'static [&'static str]]) -> Self {
        Self { needs, ..self }
    }

    /// With responses that are always, or never, streams.
    pub(crate) const fn streaming(self, streaming: Streaming) -> Self {
        Self { streaming, ..self }
    }

    /// With a path that another API has as well.
    pub(crate) const fn shared(self) -> Self {
        Self { sharing: Sharing::WithAnother, ..self }
    }

    /// True when a request's body is one for this endpoint.
    pub(crate) fn takes(&self, body: &Json<'_>) -> bool {
        self.needs.iter().all(|group| !body.any(group).is_null())
    }

    /// What is before and behind the model in the pattern. `None`: it has no model. A search for one byte is much faster than
    /// one for a word, and all endpoints are compared with the path of each request.
    fn around_model(&self) -> Option<(&'static str, &'static str)> {
        let (before, _) = self.pattern.split_once('{')?;
        Some((before, self.pattern[before.len()..].strip_prefix(MODEL)?))
    }

    /// Matches the end of a path. `None`: it is another's.
    pub(crate) fn match_end<'a>(&self, path: &'a str) -> Option<PathMatch<'a>> {
        let path = path.trim_end_matches('/');
        match self.around_model() {
            None => path.ends_with(self.pattern).then_some(PathMatch { model: None }),
            Some((before, after)) => {
                let (_, model) = path.strip_suffix(after)?.rsplit_once(before)?;
                Some(PathMatch { model: Some(model) })
            }
        }
    }

    /// Matches a whole path. `None`: it is another's.
    pub(crate) fn match_whole<'a>(&self, path: &'a str) -> Option<PathMatch<'a>> {
        match self.around_model() {
            None => (path == self.pattern).then_some(PathMatch { model: None }),
            Some((before, after)) => {
                let model = path.strip_prefix(before)?.strip_suffix(after)?;
                Some(PathMatch { model: Some(model) })
            }
        }
    }

    /// The path behind a base URL, with the model's name percent-encoded.
    pub(crate) fn path(&self, model: &str) -> String {
        self.pattern.replace(MODEL, &encoded(model))
    }

    /// The bytes of the pattern that a path must have: the longer, the more precise.
    pub(super) fn precision(&self) -> usize {
        self.pattern.len()
    }
}

/// A path that an endpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathMatch<'a> {
    /// The model's name as it is written in the path, where the path has one.
    pub model: Option<&'a str>,
}

/// The part of a path, percent-decoded. `None`: it is not UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// A model's name as a part of a path, which must not change the path otherwise. Slashes stay, as in `org/model`, unless
/// a segment is `.` or `..`.
fn encoded(model: &str) -> String {
    let has_dot_segment = model.split('/').any(|segment| matches!(segment, "." | ".."));
    utf8_percent_encode(model, if has_dot_segment { &ALL_BUT_SEGMENT } else { &ALL_BUT_PATH }).to_string()
}

/// All bytes but those that a segment of a path may have (RFC 3986 §3.3).
const ALL_BUT_SEGMENT: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');
const ALL_BUT_PATH: AsciiSet = ALL_BUT_SEGMENT.remove(b'/');

/// What stands for a model's name in a pattern.
const MODEL: &str = "{model}";

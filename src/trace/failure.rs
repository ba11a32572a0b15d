//! Why the exchange of a span failed, in words: from the attributes that the store has.

use super::semconv as names;
use super::{Span, Value};
use crate::error::ErrorKind;

/// The cause and the fix of an exchange that failed, or of a certificate that the client rejected. `None` for an exchange
/// that completed, whatever its status code.
pub(crate) fn failure(span: &Span) -> Option<String> {
    let text = |name: &str| span.attributes.get(name).and_then(Value::as_str);
    if let Some(advice) = text(names::CLIENT_ADVICE) {
        return Some(format!("the client rejected the proxy's certificate: {advice}"));
    }
    if !span.is_error() || text(names::OUTCOME).is_none_or(|outcome| outcome == "complete") {
        return None;
    }
    let error_type = text(names::ERROR_TYPE)?;
    let cause = span.status.description.as_deref().map(|cause| format!(": {cause}")).unwrap_or_default();
    let fix = ErrorKind::fix_of(error_type).map(|fix| format!("; {fix}")).unwrap_or_default();
    Some(format!("{error_type}{cause}{fix}"))
}

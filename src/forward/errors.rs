//! What it means that a body broke off.

use crate::error::{ErrorKind, FramingFault, ProxyError};
use crate::net::received_body::ReceiveError;
use crate::upstream::BodyError;

/// Explains the error of a request's body.
pub(super) fn request_error(error: &ReceiveError) -> ProxyError {
    FramingFault::behind(error)
        .map_or_else(|| ProxyError::from_source(ErrorKind::HttpRequestIncomplete, "", error), FramingFault::of_request)
}

/// Explains the error of a response's body.
pub(crate) fn response_error(error: &BodyError) -> ProxyError {
    match error {
        BodyError::Received(error) => FramingFault::behind(error).map_or_else(
            || ProxyError::from_source(ErrorKind::HttpResponseIncomplete, "", error),
            FramingFault::of_response,
        ),
        BodyError::Proxy(error) => error.clone(),
    }
}

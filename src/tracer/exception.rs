//! Errors as OpenTelemetry's exceptions.

use crate::trace::Attributes;
use crate::trace::semconv as names;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;

/// An exception: an error of Rust, or one of another language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Name of its type.
    pub type_name: String,
    /// Its text.
    pub message: String,
    /// Where it happened. `None` if that is not known.
    pub stacktrace: Option<String>,
}

impl Exception {
    /// An error of Rust, with the causes that its alternate form shows. The stack is recorded if `RUST_BACKTRACE` is set.
    pub fn of<E: fmt::Display + ?Sized>(error: &E) -> Self {
        let backtrace = Backtrace::capture();
        let stacktrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        Self { type_name: std::any::type_name::<E>().to_owned(), message: format!("{error:#}"), stacktrace }
    }
}

/// The attributes that Agent Lightning's emitters write.
pub(super) fn exception_attributes(exception: &Exception) -> Attributes {
    let mut attributes = Attributes::from([
        (names::EXCEPTION_TYPE.to_owned(), exception.type_name.as_str().into()),
        (names::EXCEPTION_MESSAGE.to_owned(), exception.message.as_str().into()),
        (names::EXCEPTION_ESCAPED.to_owned(), true.into()),
    ]);
    if let Some(stacktrace) = &exception.stacktrace {
        attributes.insert(names::EXCEPTION_STACKTRACE.to_owned(), stacktrace.as_str().into());
    }
    attributes
}

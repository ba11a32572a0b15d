//! WebSocket (RFC 6455) for an observer: the messages in the bytes of one direction.
//!
//! [`FrameParser`] finds messages and unmasks them, [`Inflater`] undoes permessage-deflate (RFC 7692). They never
//! answer, change or hold back anything.

mod content;
mod deflate;
mod frames;

pub(crate) use deflate::{DeflateAgreement, Inflater};
pub(crate) use frames::FrameParser;

//! WebSocket (RFC 6455) as seen by somebody who only watches: messages out of the bytes of one direction.
//!
//! [`frames`] finds messages and unmasks them, [`deflate`] undoes permessage-deflate (RFC 7692). They must not answer,
//! change or hold anything.

pub mod deflate;
pub mod frames;

//! HTTP/1 framing, strictly: where a message ends, and what makes that ambiguous.
//!
//! RFC 9112 §6, read as narrowly as a proxy must: what two readers could frame differently is a fault and never mended.
//! Bytes in, verdicts out; it must not change or hold a byte. [`Scanner`] runs along a connection, [`head`] judges one
//! message head, [`chunked`] follows a chunked body.

pub mod chunked;
pub mod head;

use crate::error::FramingFault;
use chunked::Chunked;
use head::{Body, find_end, request, response};

/// Follows the messages of one direction of a connection.
#[derive(Debug)]
pub struct Scanner {
    requests: bool,
    state: State,
    heads: u64,
    is_last: bool,
}

#[derive(Debug)]
enum State {
    /// In a head; so many of its bytes were searched for its end.
    Head {
        searched: usize,
    },
    Length(u64),
    Chunked(Chunked),
    /// Everything up to the end of the connection.
    Rest,
    /// After a head that asks for a change of protocol.
    Switching,
}

/// How far a look went.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// Bytes that may pass. Those behind them must be shown again, with what comes next.
    pub pass: usize,
    /// What follows them.
    pub next: Next,
}

/// What follows the bytes that may pass.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// More of the same.
    More,
    /// Whatever was agreed by the exchange that began with the last head; see [`Scanner::switch`].
    Switch,
    /// A head that must not pass.
    BadHead(FramingFault),
    /// Body bytes that must not pass.
    BadBody(FramingFault),
}

impl Scanner {
    /// For the direction that requests come from.
    pub fn of_requests() -> Self {
        Self { requests: true, state: State::Head { searched: 0 }, heads: 0, is_last: false }
    }

    /// For the direction that responses come from.
    pub fn of_responses() -> Self {
        Self { requests: false, ..Self::of_requests() }
    }

    /// Heads that passed or were refused.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// True when the message said that it is the last of its connection, and all of it has passed.
    pub fn is_over(&self) -> bool {
        self.is_last && matches!(self.state, State::Head { .. })
    }

    /// Ends [`Next::Switch`]: the connection speaks another protocol now, or goes on with HTTP.
    pub fn switch(&mut self, switched: bool) {
        self.state = if switched { State::Rest } else { State::Head { searched: 0 } };
    }

    /// Looks at `bytes`. `to_head`: the response answers a HEAD request.
    pub fn scan(&mut self, bytes: &[u8], to_head: bool) -> Scan {
        let mut pass = 0;
        loop {
            let rest = &bytes[pass..];
            if let State::Switching = self.state {
                return Scan { pass, next: Next::Switch };
            }
            if rest.is_empty() {
                return Scan { pass, next: Next::More };
            }
            match &mut self.state {
                State::Head { searched } => {
                    let end = match find_end(rest, *searched) {
                        Ok(Some(end)) => end,
                        Ok(None) => {
                            *searched = rest.len();
                            return Scan { pass, next: Next::More };
                        }
                        Err(fault) => {
                            self.heads += 1;
                            return Scan { pass, next: Next::BadHead(fault) };
                        }
                    };
                    self.heads += 1;
                    match self.after_head(&rest[..end], to_head) {
                        Ok(state) => self.state = state,
                        Err(fault) => return Scan { pass, next: Next::BadHead(fault) },
                    }
                    pass += end;
                }
                State::Length(left) => {
                    let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    pass += taken;
                    if *left == 0 {
                        self.state = State::Head { searched: 0 };
                    }
                }
                State::Chunked(chunked) => match chunked.scan(rest) {
                    Ok((taken, over)) => {
                        pass += taken;
                        if over {
                            self.state = State::Head { searched: 0 };
                        }
                    }
                    Err(fault) => return Scan { pass, next: Next::BadBody(fault) },
                },
                State::Rest => return Scan { pass: bytes.len(), next: Next::More },
                State::Switching => {}
            }
        }
    }

    fn after_head(&mut self, head: &[u8], to_head: bool) -> Result<State, FramingFault> {
        let facts = if self.requests { request(head)? } else { response(head, to_head)? };
        self.is_last = facts.is_last;
        Ok(match facts.body {
            _ if facts.switches => State::Switching,
            Body::None | Body::Length(0) => State::Head { searched: 0 },
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Chunked(Chunked::default()),
            Body::UntilClose => State::Rest,
        })
    }
}

#[cfg(test)]
mod tests;

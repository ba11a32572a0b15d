//! Follows the messages of one direction of an HTTP/1 connection.

use super::chunked::Chunked;
use super::head::{Body, find_end, request, response};
use crate::error::FramingFault;

/// Follows the messages of one direction of a connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    requests: bool,
    state: ScannerState,
    heads: u64,
    is_last: bool,
}

#[derive(Debug)]
enum ScannerState {
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
pub(crate) struct Scan {
    /// Bytes that may pass. Those behind them must be shown again, with what comes next.
    pub(crate) pass: usize,
    /// What follows them.
    pub(crate) next: Next,
}

/// What follows the bytes that may pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
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
    pub(crate) fn of_requests() -> Self {
        Self { requests: true, state: ScannerState::Head { searched: 0 }, heads: 0, is_last: false }
    }

    /// For the direction that responses come from.
    pub(crate) fn of_responses() -> Self {
        Self { requests: false, ..Self::of_requests() }
    }

    /// Heads that passed or were refused.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// True when the message said that it is the last of its connection, and all of it has passed.
    pub(crate) fn is_over(&self) -> bool {
        self.is_last && matches!(self.state, ScannerState::Head { .. })
    }

    /// Ends [`Next::Switch`]: the connection speaks another protocol now, or goes on with HTTP.
    pub(crate) fn switch(&mut self, switched: bool) {
        self.state = if switched { ScannerState::Rest } else { ScannerState::Head { searched: 0 } };
    }

    /// Looks at `bytes`. `to_head`: the response answers a HEAD request.
    pub(crate) fn scan(&mut self, bytes: &[u8], to_head: bool) -> Scan {
        let mut pass = 0;
        loop {
            let rest = &bytes[pass..];
            if let ScannerState::Switching = self.state {
                return Scan { pass, next: Next::Switch };
            }
            if rest.is_empty() {
                return Scan { pass, next: Next::More };
            }
            match &mut self.state {
                ScannerState::Head { searched } => {
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
                ScannerState::Length(left) => {
                    let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    pass += taken;
                    if *left == 0 {
                        self.state = ScannerState::Head { searched: 0 };
                    }
                }
                ScannerState::Chunked(chunked) => match chunked.scan(rest) {
                    Ok((taken, over)) => {
                        pass += taken;
                        if over {
                            self.state = ScannerState::Head { searched: 0 };
                        }
                    }
                    Err(fault) => return Scan { pass, next: Next::BadBody(fault) },
                },
                ScannerState::Rest => return Scan { pass: bytes.len(), next: Next::More },
                ScannerState::Switching => {}
            }
        }
    }

    fn after_head(&mut self, head: &[u8], to_head: bool) -> Result<ScannerState, FramingFault> {
        let facts = if self.requests { request(head)? } else { response(head, to_head)? };
        self.is_last = facts.is_last;
        Ok(match facts.body {
            _ if facts.switches => ScannerState::Switching,
            Body::None | Body::Length(0) => ScannerState::Head { searched: 0 },
            Body::Length(length) => ScannerState::Length(length),
            Body::Chunked => ScannerState::Chunked(Chunked::default()),
            Body::UntilClose => ScannerState::Rest,
        })
    }
}

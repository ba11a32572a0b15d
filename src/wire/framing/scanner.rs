//! Follows the messages of one direction of an HTTP/1 connection.

use super::chunked::Chunked;
use super::head::{BodyFraming, ResponseTo, find_end, find_response_end, reason_beyond_ascii, request, response};
use super::target::{RewrittenHead, rewritten};
use crate::error::FramingFault;

/// Follows the messages of one direction of a connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    is_of_requests: bool,
    state: ScannerState,
    heads: u64,
    // The last head said that no message follows.
    is_last: bool,
    // The reason phrase of the last final response that the HTTP library would drop.
    reason: Option<Vec<u8>>,
}

#[derive(Debug)]
enum ScannerState {
    /// Within a head, of which `searched` bytes were searched for its end.
    Head {
        searched: usize,
    },
    Length(u64),
    Chunked(Chunked),
    /// In a body that ends with the connection: all further bytes belong to it.
    Rest,
    /// After a head that asks for another protocol.
    Switching,
}

/// The result of a scan.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Bytes that may pass. Those behind them must be scanned again, with the bytes that follow.
    pub(crate) pass: usize,
    /// What comes behind these bytes, which decides what the caller does next.
    pub(crate) next: Next,
}

/// What follows the bytes that may pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// More bytes of a message, or the next message.
    More,
    /// A sound request head of this many bytes, which the HTTP library must get in another form.
    Rewritten(usize, RewrittenHead),
    /// The protocol that the exchange of the last head decides: [`Scanner::switched`] or [`Scanner::not_switched`].
    Switch,
    /// A head that must not pass.
    BadHead(FramingFault),
    /// Body bytes that must not pass.
    BadBody(FramingFault),
}

impl Scanner {
    /// A scanner of the direction that requests come from.
    pub(crate) fn of_requests() -> Self {
        Self { is_of_requests: true, state: ScannerState::Head { searched: 0 }, heads: 0, is_last: false, reason: None }
    }

    /// A scanner of the direction that responses come from.
    pub(crate) fn of_responses() -> Self {
        Self { is_of_requests: false, ..Self::of_requests() }
    }

    /// Number of heads that passed or were faulty.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// True when the last message of the connection, as its head says, has passed completely.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_last && matches!(self.state, ScannerState::Head { .. })
    }

    /// Takes the reason phrase of a final response that passed, if it has bytes beyond ASCII.
    pub(crate) fn take_reason(&mut self) -> Option<Vec<u8>> {
        self.reason.take()
    }

    /// True within bytes that only the end of the connection ends.
    pub(crate) fn is_until_close(&self) -> bool {
        matches!(self.state, ScannerState::Rest)
    }

    /// Ends [`Next::Switch`]: the connection speaks another protocol now.
    pub(crate) fn switched(&mut self) {
        self.state = ScannerState::Rest;
    }

    /// Ends [`Next::Switch`]: the connection continues with HTTP.
    pub(crate) fn not_switched(&mut self) {
        self.state = ScannerState::Head { searched: 0 };
    }

    /// Scans `bytes`. `request` is what a response in them answers; it has no meaning for requests.
    pub(crate) fn scan(&mut self, bytes: &[u8], request: ResponseTo) -> Scan {
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
                    let find = if self.is_of_requests { find_end } else { find_response_end };
                    let end = match find(rest, *searched) {
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
                    match self.after_head(&rest[..end], request) {
                        Ok((state, None)) => self.state = state,
                        Ok((state, Some(rewritten))) => {
                            self.state = state;
                            return Scan { pass, next: Next::Rewritten(end, rewritten) };
                        }
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
                    Ok((taken, is_complete)) => {
                        pass += taken;
                        if is_complete {
                            self.state = ScannerState::Head { searched: 0 };
                        }
                    }
                    // What came before an error arrives before the error.
                    Err((sound, fault)) => return Scan { pass: pass + sound, next: Next::BadBody(fault) },
                },
                ScannerState::Rest => return Scan { pass: bytes.len(), next: Next::More },
                ScannerState::Switching => {}
            }
        }
    }

    fn after_head(
        &mut self,
        head: &[u8],
        answers: ResponseTo,
    ) -> Result<(ScannerState, Option<RewrittenHead>), FramingFault> {
        let (facts, rewritten) = if self.is_of_requests {
            (request(head)?, rewritten(head)?)
        } else {
            self.reason = reason_beyond_ascii(head);
            (response(head, answers)?, None)
        };
        self.is_last = facts.is_last;
        let state = match facts.body {
            _ if facts.switches => ScannerState::Switching,
            BodyFraming::None | BodyFraming::Length(0) => ScannerState::Head { searched: 0 },
            BodyFraming::Length(length) => ScannerState::Length(length),
            BodyFraming::Chunked => ScannerState::Chunked(Chunked::default()),
            BodyFraming::UntilClose => ScannerState::Rest,
        };
        Ok((state, rewritten))
    }
}

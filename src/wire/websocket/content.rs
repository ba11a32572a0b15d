//! What RFC 6455 demands of the content of messages: text is UTF-8, and a close frame has a code that may be sent.

/// Checks that a text is UTF-8, in pieces that may divide a character.
#[derive(Debug, Default)]
pub(super) struct TextCheck {
    // The beginning of a character.
    begun: Vec<u8>,
    is_invalid: bool,
}

impl TextCheck {
    /// Takes the next bytes of the text. False if they make it invalid, which is said once.
    pub(super) fn push(&mut self, bytes: impl Iterator<Item = u8>) -> bool {
        let was_invalid = self.is_invalid;
        let mut bytes = bytes.peekable();
        while !self.is_invalid && bytes.peek().is_some() {
            self.begun.extend(bytes.by_ref().take(PIECE_BYTES));
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) if error.error_len().is_none() => drop(self.begun.drain(..error.valid_up_to())),
                Err(_) => self.is_invalid = true,
            }
        }
        was_invalid || !self.is_invalid
    }

    /// Ends the text. False if it ends within a character.
    pub(super) fn finish(&mut self) -> bool {
        let Self { begun, is_invalid } = std::mem::take(self);
        is_invalid || begun.is_empty()
    }
}

/// What is wrong with the payload of a close frame (RFC 6455 §5.5.1 and §7.4).
pub(super) fn close_fault(payload: &[u8]) -> Option<&'static str> {
    match payload {
        [] => None,
        [_] => Some("a close frame with half a code"),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            // 1004 has no meaning; 1005, 1006 and 1015 say locally how a connection ended.
            1000..=1003 | 1007..=1014 | 3000..=4999 => {
                std::str::from_utf8(reason).is_err().then_some("a close reason that is not UTF-8")
            }
            _ => Some("a close code that may not be sent"),
        },
    }
}

/// As much is unmasked and looked at together.
const PIECE_BYTES: usize = 4096;

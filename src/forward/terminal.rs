//! The frame by which an agent knows that a streamed answer is over, before the stream itself ends.
//!
//! Only asked for durable exchanges. A wrong "no" delivers a terminal event early, a wrong "yes" delays a frame for a
//! moment; neither changes a byte.

/// True when `frame` ends with a terminal event: OpenAI's `[DONE]`, Anthropic's `message_stop`, or the last event of
/// the OpenAI Responses API.
pub fn ends_answer(frame: &[u8]) -> bool {
    let tail = &frame[frame.len().saturating_sub(TAIL_BYTES)..];
    if contains(tail, b"data: [DONE]") || contains(tail, b"\"message_stop\"") {
        return true;
    }
    let head = &frame[..frame.len().min(HEAD_BYTES)];
    [&b"event: response.completed"[..], b"event: response.incomplete", b"event: response.failed"]
        .iter()
        .any(|event| contains(head, event))
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

const TAIL_BYTES: usize = 96;
const HEAD_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::ends_answer;

    #[test]
    fn knows_the_terminal_events() {
        assert!(ends_answer(b"data: {}\n\ndata: [DONE]\n\n"));
        assert!(ends_answer(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
        assert!(ends_answer(b"event: response.completed\ndata: {}\n\n"));
        assert!(!ends_answer(b"data: {\"choices\":[]}\n\n"));
        assert!(!ends_answer(b""));
    }
}

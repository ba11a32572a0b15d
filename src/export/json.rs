//! Spans as JSON, with the fields of Agent Lightning's span type.

use crate::trace::Span;
use serde_json::{Error, to_vec_pretty};

/// An indented JSON array of spans, written piece by piece.
#[derive(Default)]
pub(crate) struct SpansJson {
    has_spans: bool,
}

impl SpansJson {
    /// The text of the next spans.
    pub(crate) fn add<'a>(&mut self, spans: impl IntoIterator<Item = &'a Span>) -> Result<Vec<u8>, Error> {
        let mut text = Vec::new();
        for span in spans {
            text.extend_from_slice(if self.has_spans { b",\n" } else { b"[\n" });
            self.has_spans = true;
            // JSON has no line breaks within texts.
            for line in to_vec_pretty(span)?.split_inclusive(|byte| *byte == b'\n') {
                text.extend_from_slice(b"  ");
                text.extend_from_slice(line);
            }
        }
        Ok(text)
    }

    /// The end of the array.
    pub(crate) fn finish(self) -> &'static str {
        if self.has_spans { "\n]\n" } else { "[]\n" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::AttemptId;

    #[test]
    fn pieces_make_the_array() {
        let text = r#"{"rollout_id":"r","attempt_id":"a","sequence_id":1,"trace_id":"t","span_id":"s","parent_id":null,
            "name":"a\nb","status":{"status_code":"OK"},"attributes":{"ids":[1,2]},"events":[],"links":[],
            "start_time":null,"end_time":null,"context":null,"parent":null,"resource":{"attributes":{},"schema_url":""}}"#;
        let one: Span = serde_json::from_str(text).unwrap();
        let spans = ["a", "b", "c"].map(|attempt| Span { attempt_id: AttemptId::from(attempt), ..one.clone() });
        for split in 0..=3 {
            let mut json = SpansJson::default();
            let mut written = json.add(&spans[..split]).unwrap();
            written.extend(json.add(&spans[split..]).unwrap());
            written.extend(json.finish().as_bytes());
            assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string_pretty(&spans).unwrap() + "\n");
        }
        assert_eq!(SpansJson::default().finish(), "[]\n");
    }
}

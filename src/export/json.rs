//! Spans as JSON, with the fields of Agent Lightning's span type.

use crate::trace::Span;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;
use std::io::{Result, Write};

/// An indented JSON array of spans, written piece by piece.
#[derive(Default)]
pub(crate) struct SpansJson {
    has_spans: bool,
    /// Its memory is used again for each piece.
    text: Vec<u8>,
}

impl SpansJson {
    /// The text of the next spans.
    pub(crate) fn add<'a>(&mut self, spans: impl IntoIterator<Item = &'a Span>) -> serde_json::Result<&[u8]> {
        self.text.clear();
        for span in spans {
            self.text.extend_from_slice(if self.has_spans { b",\n  " } else { b"[\n  " });
            self.has_spans = true;
            span.serialize(&mut Serializer::with_formatter(&mut self.text, Indented::at(1)))?;
        }
        Ok(&self.text)
    }

    /// The end of the array.
    pub(crate) fn finish(self) -> &'static str {
        if self.has_spans { "\n]\n" } else { "[]\n" }
    }
}

/// Writes JSON as `to_vec_pretty` does, at a place within an indented text. Each element of a list takes two writes.
struct Indented {
    level: usize,
    has_elements: bool,
}

impl Indented {
    fn at(level: usize) -> Self {
        Self { level, has_elements: false }
    }

    fn end(&mut self, writer: &mut (impl Write + ?Sized), bracket: u8) -> Result<()> {
        self.level -= 1;
        if self.has_elements {
            self.new_line(writer, b"\n")?;
        }
        writer.write_all(&[bracket])
    }

    fn begin(&mut self, writer: &mut (impl Write + ?Sized), bracket: u8) -> Result<()> {
        self.level += 1;
        self.has_elements = false;
        writer.write_all(&[bracket])
    }

    /// `start`, which is the beginning of [`NEW_LINE`] or its end, and the indentation.
    fn new_line(&self, writer: &mut (impl Write + ?Sized), start: &[u8]) -> Result<()> {
        let spaces = self.level * INDENT;
        match NEW_LINE.get(NEW_LINE_START - start.len()..NEW_LINE_START + spaces) {
            Some(line) => writer.write_all(line),
            None => {
                writer.write_all(start)?;
                (0..self.level).try_for_each(|_| writer.write_all(&NEW_LINE[NEW_LINE_START..NEW_LINE_START + INDENT]))
            }
        }
    }

    fn next(&self, writer: &mut (impl Write + ?Sized), is_first: bool) -> Result<()> {
        self.new_line(writer, if is_first { b"\n" } else { b",\n" })
    }
}

impl Formatter for Indented {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.begin(writer, b'[')
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.end(writer, b']')
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, is_first: bool) -> Result<()> {
        self.next(writer, is_first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        self.has_elements = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.begin(writer, b'{')
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.end(writer, b'}')
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, is_first: bool) -> Result<()> {
        self.next(writer, is_first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        writer.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        self.has_elements = true;
        Ok(())
    }
}

/// Spaces of a level.
const INDENT: usize = 2;
const NEW_LINE: &[u8] = b",\n                                ";
/// Where its spaces begin.
const NEW_LINE_START: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::AttemptId;
    use proptest::prelude::*;
    use serde_json::{Value as JsonValue, json};

    #[test]
    fn pieces_make_the_array() {
        let text = r#"{"rollout_id":"r","attempt_id":"a","sequence_id":1,"trace_id":"t","span_id":"s","parent_id":null,
            "name":"a\nb","status":{"status_code":"OK"},"attributes":{"ids":[1,2]},"events":[],"links":[],
            "start_time":null,"end_time":null,"context":null,"parent":null,"resource":{"attributes":{},"schema_url":""}}"#;
        let one: Span = serde_json::from_str(text).unwrap();
        let spans = ["a", "b", "c"].map(|attempt| Span { attempt_id: AttemptId::from(attempt), ..one.clone() });
        for split in 0..=3 {
            let mut json = SpansJson::default();
            let mut written = json.add(&spans[..split]).unwrap().to_vec();
            written.extend(json.add(&spans[split..]).unwrap());
            written.extend(json.finish().as_bytes());
            assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string_pretty(&spans).unwrap() + "\n");
        }
        assert_eq!(SpansJson::default().finish(), "[]\n");
    }

    proptest! {
        #[test]
        fn json_is_indented_as_it_always_is(seed in any::<u64>(), depth in 0..20_usize) {
            let mut random = fastrand::Rng::with_seed(seed);
            let value = nested(&mut random, depth);
            let mut text = Vec::new();
            value.serialize(&mut Serializer::with_formatter(&mut text, Indented::at(0))).unwrap();
            prop_assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string_pretty(&value).unwrap());
        }
    }

    /// A random value of at most `depth` levels. A depth of 0 ends it: siblings would otherwise grow without a limit.
    fn nested(random: &mut fastrand::Rng, depth: usize) -> JsonValue {
        let count = random.usize(0..3);
        if depth == 0 {
            return json!(["a\"é", 1, null])[count].clone();
        }
        let elements = (0..count).map(|at| nested(random, if at == 0 { depth - 1 } else { 0 }));
        if depth.is_multiple_of(2) {
            elements.enumerate().map(|(at, one)| (at.to_string(), one)).collect()
        } else {
            elements.collect::<Vec<JsonValue>>().into()
        }
    }
}

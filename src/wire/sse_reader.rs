//! Server-sent events that arrive in pieces (WHATWG HTML §9.2). An event is returned when its blank line has arrived.
//!
//! Little is held: the data of an event up to [`LONG_BYTES`] as text, longer data as the JSON value that it is
//! ([`JsonBuilder`]).

use super::json_builder::JsonBuilder;
use crate::trace::SamplerArrays;

/// An event that has ended.
#[derive(Debug)]
pub(crate) struct ReadEvent<'a> {
    /// Its `event` field. Empty means `message`.
    pub(crate) name: &'a [u8],
    pub(crate) data: EventData,
    /// How many bytes of the stream end with its blank line.
    pub(crate) end: usize,
}

/// The `data` lines of an event, joined by LF.
#[derive(Debug)]
pub(crate) enum EventData {
    Text(Vec<u8>),
    /// Data that is too long to be held as text.
    Value(JsonBuilder),
}

/// Reads the events of a stream that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    /// The arrays that are kept of long data.
    arrays: SamplerArrays,
    /// The incomplete line; empty while the data of a line is being built.
    line: Vec<u8>,
    is_building_line: bool,
    name: Vec<u8>,
    data: Option<EventData>,
    /// The last byte was a carriage return: a line feed belongs to it.
    ends_with_cr: bool,
    /// The number of bytes that were read.
    position: usize,
    /// How many bytes of a byte order mark have arrived at the start of the stream.
    mark: usize,
}

impl SseReader {
    /// A reader that keeps these arrays of the events of a model.
    pub(crate) fn keeping(arrays: SamplerArrays) -> Self {
        Self { arrays, ..Self::default() }
    }

    /// Reads the next bytes and gives the events that end in them.
    pub(crate) fn push(&mut self, bytes: &[u8], on_event: &mut dyn FnMut(ReadEvent<'_>)) {
        let start = self.position;
        let mut at = self.skip_mark(bytes);
        if self.ends_with_cr && !bytes.is_empty() {
            self.ends_with_cr = false;
            at = usize::from(bytes[0] == b'\n');
        }
        while let Some(length) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) {
            let (from, end) = (at, at + length);
            at = end + 1;
            if bytes[end] == b'\r' {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.ends_with_cr = true,
                }
            }
            self.position = start + at;
            self.end_line(&bytes[from..end], on_event);
        }
        self.position = start + bytes.len();
        self.hold(&bytes[at..]);
    }

    /// Skips a byte order mark at the beginning of the stream. Returns how many of `bytes` belong to it.
    fn skip_mark(&mut self, bytes: &[u8]) -> usize {
        if self.position != self.mark || self.mark == BOM.len() {
            return 0;
        }
        let of_mark = bytes.iter().zip(&BOM[self.mark..]).take_while(|(byte, mark)| byte == mark).count();
        self.mark += of_mark;
        if of_mark < bytes.len() && self.mark < BOM.len() {
            // It was none.
            self.line.extend_from_slice(&BOM[..self.mark]);
            self.mark = BOM.len();
        }
        of_mark
    }

    /// Ends the stream: gives the event that has no blank line, if there is one.
    pub(crate) fn finish(mut self, on_event: &mut dyn FnMut(ReadEvent<'_>)) {
        if !self.line.is_empty() || self.is_building_line {
            self.end_line(b"", &mut |_| {});
        }
        if let Some(data) = self.data.take() {
            on_event(ReadEvent { name: &self.name, data, end: self.position });
        }
    }

    /// An estimate of the bytes of memory in use.
    pub(crate) fn memory_bytes(&self) -> usize {
        let data = match &self.data {
            None => 0,
            Some(EventData::Text(text)) => text.capacity(),
            Some(EventData::Value(builder)) => builder.memory_bytes(),
        };
        self.line.capacity() + self.name.capacity() + data
    }

    fn hold(&mut self, piece: &[u8]) {
        if self.is_building_line {
            return self.build(piece);
        }
        self.line.extend_from_slice(piece);
        let held = self.line.len() + if let Some(EventData::Text(text)) = &self.data { text.len() } else { 0 };
        let is_building = matches!(self.data, Some(EventData::Value(_)));
        let Some(value) = self.line.strip_prefix(b"data:") else {
            // No other field of a model's stream is long.
            return self.line.truncate(MAX_OTHER_LINE_BYTES);
        };
        if (held > LONG_BYTES || is_building) && !value.is_empty() {
            let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
            self.line = Vec::new();
            self.is_building_line = true;
            self.begin_value();
            self.build(&value);
        }
    }

    /// Makes the data a value, with a line break between its lines.
    fn begin_value(&mut self) {
        let mut builder = match self.data.take() {
            None => JsonBuilder::keeping(self.arrays),
            Some(EventData::Value(builder)) => builder,
            Some(EventData::Text(text)) => {
                let mut builder = JsonBuilder::keeping(self.arrays);
                builder.push_last(&text);
                builder
            }
        };
        if !builder.is_empty() {
            builder.push_last(b"\n");
        }
        self.data = Some(EventData::Value(builder));
    }

    fn build(&mut self, piece: &[u8]) {
        if let Some(EventData::Value(builder)) = &mut self.data {
            builder.push_last(piece);
        }
    }

    /// Ends a line, of which `last` is the last piece.
    fn end_line(&mut self, last: &[u8], on_event: &mut dyn FnMut(ReadEvent<'_>)) {
        if self.is_building_line {
            self.is_building_line = false;
            return self.build(last);
        }
        let held = std::mem::take(&mut self.line);
        if held.is_empty() {
            self.read_line(last, on_event);
        } else {
            self.line = held;
            self.line.extend_from_slice(last);
            let mut line = std::mem::take(&mut self.line);
            self.read_line(&line, on_event);
            line.clear();
            self.line = line;
        }
    }

    fn read_line(&mut self, line: &[u8], on_event: &mut dyn FnMut(ReadEvent<'_>)) {
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                on_event(ReadEvent { name: &self.name, data, end: self.position });
            }
            self.name.clear();
            return;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.name = value[..value.len().min(MAX_OTHER_LINE_BYTES)].to_vec(),
            b"data" => match &mut self.data {
                None => self.data = Some(EventData::Text(value.to_vec())),
                Some(EventData::Text(text)) if text.len() + value.len() < LONG_BYTES => {
                    text.push(b'\n');
                    text.extend_from_slice(value);
                }
                Some(_) => {
                    self.begin_value();
                    self.build(value);
                }
            },
            _ => {}
        }
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";
/// The most data of an event that is held as text.
pub(crate) const LONG_BYTES: usize = 64 * 1024;
/// The most bytes that are held of a line that is no data.
const MAX_OTHER_LINE_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json;
    use crate::wire::sse::Events;
    use proptest::prelude::*;

    type Read = (Vec<u8>, Result<Vec<u8>, String>, usize);

    /// The events of `text`, cut at these places. Long data is written back as JSON.
    fn read(text: &[u8], cuts: &[usize]) -> Vec<Read> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut reader, mut events, mut from) = (SseReader::default(), Vec::new(), 0);
        let mut on_event = |event: ReadEvent<'_>| {
            let data = match event.data {
                EventData::Text(text) => Ok(text),
                EventData::Value(builder) => Err(builder
                    .finish()
                    .map_or_else(|error| error.to_string(), |(value, _)| serde_json::to_string(&value).unwrap())),
            };
            events.push((event.name.to_vec(), data, event.end));
        };
        for cut in cuts.into_iter().chain([text.len()]) {
            reader.push(&text[from..cut], &mut on_event);
            from = cut;
        }
        reader.finish(&mut on_event);
        events
    }

    #[test]
    fn long_data_is_built_and_never_held() {
        let ids = (0..20_000).map(|id| id.to_string()).collect::<Vec<_>>();
        let (one, rest) = (ids.join(","), ids.join(",\ndata: "));
        let text = format!("event: a\ndata: {{\"ids\":[{one}],\ndata: \"more\":[{rest}]}}\n\ndata: 2\n\n");
        let events = read(text.as_bytes(), &[1, 70_000, 70_001, 150_000]);
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].0, b"a");
        assert_eq!(events[0].1.as_ref().unwrap_err(), &format!("{{\"ids\":[{one}],\"more\":[{one}]}}"));
        assert_eq!(events[1], (Vec::new(), Ok(b"2".to_vec()), text.len()));
        let mut reader = SseReader::default();
        reader.push(&text.as_bytes()[..text.len() - 20], &mut |_| {});
        assert!(reader.memory_bytes() < 200_000, "{}", reader.memory_bytes());
        // A comment without an end.
        let mut reader = SseReader::default();
        (0..100).for_each(|_| reader.push(&[b':'; 10_000], &mut |_| {}));
        assert!(reader.memory_bytes() < 50_000);
    }

    proptest! {
        #[test]
        fn any_division_of_a_stream_gives_its_events(
            bytes in prop::collection::vec(prop::sample::select(b"data: \r\n:xev\xff\xef\xbb\xbf".to_vec()), 0..200),
            cuts in prop::collection::vec(0_usize..200, 0..10),
        ) {
            let expected: Vec<Read> =
                Events::new(&bytes).map(|event| (event.name.to_vec(), Ok(event.data.to_vec()), event.end)).collect();
            prop_assert_eq!(read(&bytes, &cuts), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn long_data_of_any_lines_is_its_value(
            lines in prop::collection::vec(0_usize..20_000, 1..8),
            end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            cuts in prop::collection::vec(0_usize..400_000, 0..10),
        ) {
            let value = format!("[{}0]", lines.iter().map(|length| "1,".repeat(*length) + "\n").collect::<String>());
            let data = value.split('\n').map(|line| format!("data: {line}{end}")).collect::<String>();
            let text = format!("{data}{end}data: x{end}{end}");
            let events = read(text.as_bytes(), &cuts);
            prop_assert_eq!(events.len(), 2);
            let parsed = match &events[0].1 {
                Ok(text) => json::parse(text).unwrap().into_owned(),
                Err(written) => json::parse(written.as_bytes()).unwrap().into_owned(),
            };
            prop_assert!(parsed == json::parse(value.as_bytes()).unwrap().into_owned());
        }
    }
}

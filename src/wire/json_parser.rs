//! Reads the usual JSON of requests and responses, several times as fast as serde_json reads values of any type.
//!
//! It takes only what serde_json takes as well, and makes the same value of it. What is unusual it leaves to serde_json: invalid
//! UTF-8, numbers of more than 18 digits, great depth, and all that is no JSON. `None` therefore says nothing about a text.

use super::json_ids::read_ids;
use super::json_scan::string_end;
use super::json_value::{Column, Json, MIN_PACKED, Packed, Table};
use std::borrow::Cow;

/// Where a value is, which decides what of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// Anywhere: all of it.
    Any,
    /// In a response: without the unused parts of its `logprobs`. Long lists of ids are packed.
    Response,
    /// In the `logprobs` of a response.
    Logprobs,
}

impl Within {
    /// Where the value of this key is.
    pub(super) fn value_of(self, key: &str) -> Self {
        if self == Self::Response && key == "logprobs" { Self::Logprobs } else { self }
    }

    /// True if the value of this key is left out: most of a response's bytes may be there, and nothing needs them.
    pub(super) fn omits(self, key: &str) -> bool {
        self == Self::Logprobs && matches!(key, "bytes" | "top_logprobs")
    }
}

/// The value of a whole text.
pub(super) fn read(text: &[u8], within: Within) -> Option<Json<'_>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.skip_space();
    let value = parser.value(within)?;
    parser.skip_space();
    (parser.at == text.len()).then_some(value)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Moves on if this byte is next.
    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, within: Within) -> Option<Json<'a>> {
        match self.peek()? {
            b'"' => self.string().map(Json::Text),
            b'{' => self.object(within),
            b'[' => match self.table(within) {
                Some(table) => Some(Json::Packed(Packed::Table(table))),
                None => self.list(within),
            },
            b't' => self.word("true").map(|()| Json::Bool(true)),
            b'f' => self.word("false").map(|()| Json::Bool(false)),
            b'n' => self.word("null").map(|()| Json::Null),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.bytes()[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// Reads the elements of a container behind its opening bracket, up to the closing one.
    fn elements(&mut self, close: u8, mut read: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        if !self.takes(close) {
            loop {
                read(self)?;
                self.skip_space();
                match self.next()? {
                    b',' => self.skip_space(),
                    byte if byte == close => break,
                    _ => return None,
                }
            }
        }
        self.depth -= 1;
        Some(())
    }

    /// A key with its colon.
    fn key(&mut self) -> Option<Cow<'a, str>> {
        let key = self.string()?;
        self.skip_space();
        let has_value = self.takes(b':');
        self.skip_space();
        has_value.then_some(key)
    }

    fn object(&mut self, within: Within) -> Option<Json<'a>> {
        let mut fields = Vec::new();
        self.elements(b'}', |parser| {
            let key = parser.key()?;
            if within.omits(&key) {
                return parser.skip();
            }
            let value = parser.value(within.value_of(&key))?;
            fields.push((key, value));
            Some(())
        })?;
        Some(Json::Object(fields))
    }

    fn list(&mut self, within: Within) -> Option<Json<'a>> {
        // Ids until another value comes.
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        self.elements(b']', |parser| {
            let may_pack = within != Within::Any && values.is_empty();
            if may_pack {
                parser.at += read_ids(&mut ids, &parser.bytes()[parser.at..]);
                parser.skip_space();
            }
            let value = parser.value(within)?;
            let id = if let Json::Int(number) = value { u32::try_from(number).ok() } else { None };
            match id.filter(|_| may_pack) {
                Some(id) => ids.push(id),
                None => {
                    values.extend(ids.drain(..).map(|id| Json::Int(id.into())));
                    values.push(value);
                }
            }
            Some(())
        })?;
        if ids.len() >= MIN_PACKED {
            return Some(Json::Packed(Packed::Ids(ids)));
        }
        values.extend(ids.into_iter().map(|id| Json::Int(id.into())));
        Some(Json::List(values))
    }

    /// Reads a long list of objects that are written alike, as logprobs are. `None`: it is no such list, and nothing was read.
    fn table(&mut self, within: Within) -> Option<Table> {
        if within != Within::Logprobs || self.text.len() - self.at < MIN_TABLE_BYTES {
            return None;
        }
        let start = self.at;
        let table = self.rows(within).filter(|table| table.rows() >= MIN_PACKED);
        if table.is_none() {
            self.at = start;
        }
        table
    }

    fn rows(&mut self, within: Within) -> Option<Table> {
        // Of each value of the first row, what stands before it; of those that are kept, the column.
        let mut before: Vec<&'a str> = Vec::new();
        let mut columns: Vec<(usize, Cow<'a, str>, Column)> = Vec::new();
        self.at += 1;
        self.skip_space();
        let mut from = self.at;
        if !self.takes(b'{') {
            return None;
        }
        self.skip_space();
        loop {
            let key = self.key()?;
            before.push(self.text.get(from..self.at)?);
            if within.omits(&key) {
                self.skip()?;
            } else {
                let mut column = Column::Nulls;
                self.cell(&mut column, 0)?;
                columns.push((before.len() - 1, key, column));
            }
            from = self.at;
            self.skip_space();
            if !self.takes(b',') {
                break;
            }
            self.skip_space();
        }
        if !self.takes(b'}') {
            return None;
        }
        // Between two rows: up to the first value of the next one.
        self.skip_space();
        if !self.takes(b',') {
            return None;
        }
        self.skip_space();
        if !self.takes_text(before.first()?) {
            return None;
        }
        let between = self.text.get(from..self.at)?;
        let mut rows = 1;
        loop {
            let mut kept = columns.iter_mut().peekable();
            for (place, before) in before.iter().enumerate() {
                if place > 0 && !self.takes_text(before) {
                    return None;
                }
                match kept.next_if(|(kept, ..)| *kept == place) {
                    Some((.., column)) => self.cell(column, rows)?,
                    None => self.skip()?,
                }
            }
            rows += 1;
            if !self.takes_text(between) {
                break;
            }
        }
        self.skip_space();
        let is_closed = self.takes(b'}');
        self.skip_space();
        let columns = columns.into_iter().map(|(_, key, column)| (key, column)).collect();
        (is_closed && self.takes(b']')).then(|| Table::of_columns(columns, rows))
    }

    /// Reads the value of a row that has `rows` before it. `None`: it is no text, no number and not null.
    fn cell(&mut self, column: &mut Column, rows: usize) -> Option<()> {
        match self.peek()? {
            b'"' => column.push_text(&self.string()?, rows),
            b'n' => {
                self.word("null")?;
                column.push(Json::Null, rows);
            }
            b'-' | b'0'..=b'9' => match self.number()? {
                Json::Int(number) => column.push(Json::Int(number), rows),
                Json::Float(number) => column.push(Json::Float(number), rows),
                _ => return None,
            },
            _ => return None,
        }
        Some(())
    }

    /// Moves on if this text is next.
    fn takes_text(&mut self, text: &str) -> bool {
        let found = self.bytes()[self.at..].starts_with(text.as_bytes());
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Reads a value that is not kept.
    fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'{' => self.elements(b'}', |parser| {
                parser.key()?;
                parser.skip()
            }),
            b'[' => self.elements(b']', Self::skip),
            _ => self.value(Within::Any).map(drop),
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        let (open, end) = (self.at, string_end(self.bytes(), self.at)?);
        self.at = end;
        let (quoted, inner) = (self.text.get(open..end)?, self.text.get(open + 1..end - 1)?);
        // Over all bytes, because a loop that may end early is slower.
        let is_special = |byte: &u8| *byte < b' ' || *byte == b'\\';
        if inner.as_bytes().iter().fold(false, |found, byte| found | is_special(byte)) {
            return serde_json::from_str(quoted).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(inner))
    }

    fn number(&mut self) -> Option<Json<'a>> {
        let start = self.at;
        let is_negative = self.takes(b'-');
        let digits = self.digits();
        let is_whole = match digits {
            [] | [b'0', _, ..] => return None,
            _ => !matches!(self.peek(), Some(b'.' | b'e' | b'E')),
        };
        if is_whole {
            if digits.len() > MAX_DIGITS {
                let text = self.text.get(start..self.at)?;
                return Some(text.parse().map_or(Json::Raw(Cow::Borrowed(text)), Json::Int));
            }
            let number = digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
            // serde_json makes a double of -0.
            return match (is_negative, number) {
                (true, 0) => None,
                (true, number) => Some(Json::Int(-number)),
                (false, number) => Some(Json::Int(number)),
            };
        }
        if self.takes(b'.') && self.digits().is_empty() {
            return None;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _ = self.takes(b'+') || self.takes(b'-');
            if self.digits().is_empty() {
                return None;
            }
        }
        let number: f64 = self.text.get(start..self.at)?.parse().ok()?;
        number.is_finite().then_some(Json::Float(number))
    }

    fn digits(&mut self) -> &'a [u8] {
        let rest = &self.bytes()[self.at..];
        let digits = &rest[..rest.iter().take_while(|byte| byte.is_ascii_digit()).count()];
        self.at += digits.len();
        digits
    }
}

/// Digits of a number that certainly fits.
const MAX_DIGITS: usize = 18;

/// In less text there are too few rows for a table.
const MIN_TABLE_BYTES: usize = MIN_PACKED * 16;

/// Less than serde_json reads.
const MAX_DEPTH: usize = 100;

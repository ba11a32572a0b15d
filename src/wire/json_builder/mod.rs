//! Builds a JSON value from text that arrives in pieces, so that the text need not be kept.
//!
//! The value is the one that [`super::json::parse_response`] gives for the whole text, with two differences: long lists
//! are packed ([`super::json_value::Packed`]), and what [`super::json::parse_repaired`] repairs is repaired on the way. Strings
//! and numbers that are still open are held as text; nothing else is.

mod array;
mod elements;
mod fields;

use super::json::{self, Json, JsonRepairs};
use super::json_repair::without_lone_surrogates;
use super::json_scan::ValueScan;
use crate::trace::SamplerArrays;
use array::ArrayReader;
use elements::Elements;
use fields::{Field, LOGPROBS, known_key};
use std::borrow::Cow;

pub(crate) use array::number_array;

/// A value of which the text is still arriving.
#[derive(Debug)]
pub(crate) struct JsonBuilder {
    state: State,
    /// The containers that are open, outermost first.
    open: Vec<Container>,
    /// The text of the string, number or word that is open; of a string, what is between its quotes.
    token: Vec<u8>,
    root: Option<Json<'static>>,
    repairs: JsonRepairs,
    value_bytes: usize,
    /// The arrays that are kept, and the one that is open.
    arrays: SamplerArrays,
    array: Option<Box<ArrayReader>>,
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is no JSON, or ends early")]
pub(crate) struct NotJson;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    /// A value, or the end of a list that is empty so far.
    FirstElement,
    Key,
    /// A key, or the end of an object that is empty so far.
    FirstKey,
    Colon,
    /// A comma, or the end of the innermost container.
    AfterValue,
    /// Within a string.
    String {
        role: StringRole,
        is_escaped: bool,
    },
    /// Within a number, or a word such as `true`.
    Word,
    /// At the start of a value that is skipped, or read as an array.
    Unbuilt,
    /// Within such a value.
    Scanning(ValueScan),
    Complete,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StringRole {
    Key,
    Value,
}

#[derive(Debug)]
enum Container {
    List { elements: Elements, is_table: bool },
    Object { fields: Vec<(Cow<'static, str>, Json<'static>)>, key: Cow<'static, str>, is_in_logprobs: bool },
}

impl Default for JsonBuilder {
    fn default() -> Self {
        Self::keeping(SamplerArrays::default())
    }
}

impl JsonBuilder {
    /// A builder that keeps these arrays of a response of a model.
    pub(crate) fn keeping(arrays: SamplerArrays) -> Self {
        let (open, token, root, repairs, value_bytes, array) = Default::default();
        Self { state: State::Value, open, token, root, repairs, value_bytes, arrays, array }
    }

    /// Reads the next bytes up to the end of the value, and returns how many those are. Text that is no JSON is dropped to
    /// its end.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            at = match self.state {
                State::Complete => return at,
                State::Failed => return bytes.len(),
                State::String { role, is_escaped } => self.string(bytes, at, role, is_escaped),
                State::Word => self.word(bytes, at),
                State::Scanning(scan) => self.scan_on(bytes, at, scan),
                _ if bytes[at].is_ascii_whitespace() => at + 1,
                State::Value => self.value(bytes, at),
                State::Unbuilt => self.scan(bytes, at),
                State::FirstElement if bytes[at] == b']' => self.close(at),
                State::FirstElement => self.value(bytes, at),
                State::FirstKey if bytes[at] == b'}' => self.close(at),
                State::FirstKey | State::Key => self.key(bytes[at], at),
                State::Colon => self.colon(bytes[at], at),
                State::AfterValue => self.after_value(bytes[at], at),
            };
        }
        at
    }

    /// True once the value is complete. A number or word is complete when another byte follows it.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// True while nothing but white space has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.state == State::Value && self.open.is_empty()
    }

    /// Reads bytes of a text that is this value and nothing else: what follows a whole value makes it no JSON, unless it is
    /// white space.
    pub(crate) fn push_last(&mut self, bytes: &[u8]) {
        let read = self.push(bytes);
        if !bytes[read..].trim_ascii().is_empty() {
            self.fail(0);
        }
    }

    /// An estimate of the bytes of memory in use.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.value_bytes + self.token.capacity() + self.array.as_ref().map_or(0, |array| array.memory_bytes())
    }

    /// The value, and what was repaired in it.
    pub(crate) fn finish(mut self) -> Result<(Json<'static>, JsonRepairs), NotJson> {
        if self.state == State::Word {
            self.end_word();
        }
        let root = self.root.filter(|_| self.state == State::Complete).ok_or(NotJson)?;
        Ok((root, self.repairs))
    }

    fn value(&mut self, bytes: &[u8], at: usize) -> usize {
        if let Some(Container::List { elements, .. }) = self.open.last_mut() {
            let (read, added) = elements.push_ids(&bytes[at..]);
            self.value_bytes += added;
            if read > 0 {
                return at + read;
            }
        }
        match bytes[at] {
            b'"' => {
                self.state = State::String { role: StringRole::Value, is_escaped: false };
                at + 1
            }
            b'{' => {
                let is_in_logprobs = self.is_in_logprobs();
                self.open(at, State::FirstKey, Container::Object { fields: Vec::new(), key: "".into(), is_in_logprobs })
            }
            b'[' => {
                let is_table = self.is_in_logprobs();
                let elements = Elements::default();
                self.open(at, State::FirstElement, Container::List { elements, is_table })
            }
            b',' | b'}' | b']' | b':' => self.fail(at),
            _ => {
                self.state = State::Word;
                at
            }
        }
    }

    fn open(&mut self, at: usize, next: State, container: Container) -> usize {
        if self.open.len() >= MAX_DEPTH {
            return self.fail(at);
        }
        self.open.push(container);
        self.state = next;
        at + 1
    }

    /// True within the logprobs of a response.
    fn is_in_logprobs(&self) -> bool {
        let object = self.open.iter().rev().find_map(|container| match container {
            Container::Object { key, is_in_logprobs, .. } => Some(*is_in_logprobs || LOGPROBS.contains(&&**key)),
            Container::List { .. } => None,
        });
        object.unwrap_or_default()
    }

    fn after_value(&mut self, byte: u8, at: usize) -> usize {
        self.state = match (byte, self.open.last()) {
            (b',', Some(Container::List { .. })) => State::Value,
            (b',', Some(Container::Object { .. })) => State::Key,
            (b']', Some(Container::List { .. })) | (b'}', Some(Container::Object { .. })) => return self.close(at),
            _ => return self.fail(at),
        };
        at + 1
    }

    fn key(&mut self, byte: u8, at: usize) -> usize {
        if byte != b'"' {
            return self.fail(at);
        }
        self.state = State::String { role: StringRole::Key, is_escaped: false };
        at + 1
    }

    fn colon(&mut self, byte: u8, at: usize) -> usize {
        if byte != b':' {
            return self.fail(at);
        }
        let depth = self.open.len();
        let field = match self.open.last() {
            Some(Container::Object { key, is_in_logprobs, .. }) => Field::of(key, *is_in_logprobs, depth),
            _ => Field::Value,
        };
        self.state = match field {
            Field::Value => State::Value,
            Field::Unused => State::Unbuilt,
            Field::Array(array) => {
                self.array = self.arrays.contains(array).then(Box::default);
                State::Unbuilt
            }
        };
        at + 1
    }

    fn string(&mut self, bytes: &[u8], at: usize, role: StringRole, is_escaped: bool) -> usize {
        let mut end = if is_escaped { at + 1 } else { at };
        let is_escaped = loop {
            let Some(mark) = memchr::memchr2(b'"', b'\\', bytes.get(end..).unwrap_or_default()) else {
                break false;
            };
            end += mark;
            if bytes[end] == b'"' {
                return self.end_string(&bytes[at..end], end, role);
            }
            if end + 1 == bytes.len() {
                break true;
            }
            end += 2;
        };
        self.token.extend_from_slice(&bytes[at..]);
        self.state = State::String { role, is_escaped };
        bytes.len()
    }

    /// Ends a string, of which `last` is the last piece and `end` the index of the quote.
    fn end_string(&mut self, last: &[u8], end: usize, role: StringRole) -> usize {
        let text = if self.token.is_empty() {
            text_of(last, &mut self.repairs)
        } else {
            let mut token = std::mem::take(&mut self.token);
            token.extend_from_slice(last);
            text_of(&token, &mut self.repairs).map(|text| Cow::Owned(text.into_owned()))
        };
        let Some(text) = text else { return self.fail(end) };
        match (role, self.open.last_mut()) {
            (StringRole::Key, Some(Container::Object { key, .. })) => {
                *key = known_key(&text).map_or_else(|| Cow::Owned(text.into_owned()), Cow::Borrowed);
                self.state = State::Colon;
            }
            _ => self.add(Json::Text(Cow::Owned(text.into_owned()))),
        }
        end + 1
    }

    fn word(&mut self, bytes: &[u8], at: usize) -> usize {
        let rest = &bytes[at..];
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        if self.token.len() + length > MAX_WORD_BYTES {
            return self.fail(at);
        }
        self.token.extend_from_slice(&rest[..length]);
        if length < rest.len() {
            self.end_word();
        }
        at + length
    }

    fn end_word(&mut self) {
        let value = match self.token.as_slice() {
            b"NaN" | b"Infinity" | b"-Infinity" => {
                self.repairs.not_finite = true;
                Some(Json::Null)
            }
            token => json::parse(token).ok().map(Json::into_owned),
        };
        self.token.clear();
        match value {
            Some(value) => self.add(value),
            None => drop(self.fail(0)),
        }
    }

    /// The first byte of a value that is not built.
    fn scan(&mut self, bytes: &[u8], at: usize) -> usize {
        let Some(scan) = ValueScan::open(bytes[at]) else { return self.fail(at) };
        if let Some(array) = &mut self.array {
            array.push(&bytes[at..=at]);
        }
        self.state = State::Scanning(scan);
        at + 1
    }

    /// Follows a value that is not built to its end.
    fn scan_on(&mut self, bytes: &[u8], at: usize, mut scan: ValueScan) -> usize {
        let end = scan.end(bytes, at);
        if let Some(array) = &mut self.array {
            array.push(&bytes[at..end.unwrap_or(bytes.len())]);
        }
        let Some(end) = end else {
            self.state = State::Scanning(scan);
            return bytes.len();
        };
        self.state = State::AfterValue;
        if let Some(array) = self.array.take() {
            let value = array.into_json();
            self.value_bytes += value.memory_bytes();
            self.add(value);
        }
        end
    }

    fn close(&mut self, at: usize) -> usize {
        match self.open.pop() {
            Some(Container::List { elements, .. }) => self.add(elements.into_json()),
            Some(Container::Object { fields, .. }) => self.add(Json::Object(fields)),
            None => return self.fail(at),
        }
        at + 1
    }

    /// Adds a whole value to the innermost container, or makes it the root.
    fn add(&mut self, value: Json<'static>) {
        self.state = State::AfterValue;
        if let Json::Text(text) = &value {
            self.value_bytes += text.len();
        }
        match self.open.last_mut() {
            Some(Container::List { elements, is_table }) => {
                let (added, freed) = elements.push(value, *is_table);
                self.value_bytes = (self.value_bytes + added).saturating_sub(freed);
            }
            Some(Container::Object { fields, key, .. }) => {
                self.value_bytes += FIELD_BYTES;
                fields.push((std::mem::take(key), value));
            }
            None => {
                self.root = Some(value);
                self.state = State::Complete;
            }
        }
    }

    fn fail(&mut self, at: usize) -> usize {
        *self = Self { state: State::Failed, ..Self::default() };
        at
    }
}

/// The text between the quotes of a string. `None`: it is no JSON.
fn text_of<'a>(raw: &'a [u8], repairs: &mut JsonRepairs) -> Option<Cow<'a, str>> {
    let text = String::from_utf8_lossy(raw);
    repairs.characters |= matches!(text, Cow::Owned(_));
    if memchr::memchr(b'\\', raw).is_some() {
        let paired = without_lone_surrogates(&text);
        repairs.characters |= matches!(paired, Cow::Owned(_));
        let text = paired;
        return serde_json::from_str::<String>(&format!("\"{text}\"")).ok().map(Cow::Owned);
    }
    let has_control = raw.iter().fold(false, |found, byte| found | (*byte < 0x20));
    (!has_control).then_some(text)
}

/// The depth up to which serde_json reads.
const MAX_DEPTH: usize = 127;
/// Longer than every number that a sampler writes.
const MAX_WORD_BYTES: usize = 512;
const FIELD_BYTES: usize = size_of::<(Cow<'_, str>, Json<'_>)>();

#[cfg(test)]
mod tests;

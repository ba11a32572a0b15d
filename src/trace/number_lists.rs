//! Long lists of numbers in a text, such as the token ids in a body that is kept: a store has them as lists, apart from the
//! text, so that those that the span or another call has too are stored once, and a reader need not parse them.
//!
//! A list is taken out only if its numbers, written again, are the same bytes. What it means, and whether the text is JSON at
//! all, does not matter.

use super::{Attributes, Span, Value};
use std::borrow::Cow;

/// A shorter list takes more as a value of its own than it saves.
const MINIMUM_NUMBERS: usize = 128;

/// Further lists stay in the text.
const MAX_LISTS: usize = 256;

/// Divides the name of an attribute from the place of a list in it. No attribute with it in its name is externalized.
const MARK: char = '\u{1}';

/// A text without its long lists.
#[derive(Debug, PartialEq)]
pub(crate) struct DividedText {
    /// What is left: each list is `[]`.
    pub(crate) rest: String,
    /// In the order of the text.
    pub(crate) lists: Vec<NumberList>,
}

/// A list that was taken out.
#[derive(Debug, PartialEq)]
pub(crate) struct NumberList {
    place: Place,
    /// Each fits into 32 bits without a sign.
    pub(crate) numbers: Vec<i64>,
}

/// Where a list was, and how it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    /// Index in the rest, behind the opening bracket.
    at: usize,
    separator: Separator,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Separator {
    Comma,
    CommaSpace,
}

impl Separator {
    const ALL: [Self; 2] = [Self::CommaSpace, Self::Comma];

    fn text(self) -> &'static str {
        match self {
            Self::Comma => ",",
            Self::CommaSpace => ", ",
        }
    }

    /// Its letter in the name of a list.
    fn letter(self) -> char {
        match self {
            Self::Comma => 'c',
            Self::CommaSpace => 's',
        }
    }
}

impl Place {
    /// The name of the list at this place in the text of `attribute`.
    fn name(self, attribute: &str) -> String {
        let Self { at, separator } = self;
        format!("{attribute}{MARK}{at:012}{}", separator.letter())
    }
}

impl NumberList {
    /// The name under which the list is stored beside the text, which is stored as `attribute`.
    pub(crate) fn name(&self, attribute: &str) -> String {
        self.place.name(attribute)
    }
}

/// True for a name that [`NumberList::name`] may have made.
pub(crate) fn is_marked(name: &str) -> bool {
    name.contains(MARK)
}

/// The attribute that a value belongs to which is stored under this name.
pub(crate) fn attribute_of(name: &str) -> &str {
    name.split_once(MARK).map_or(name, |(attribute, _)| attribute)
}

fn place_of(name: &str) -> Option<(&str, Place)> {
    let (attribute, place) = name.split_once(MARK)?;
    let separator = Separator::ALL.into_iter().find(|separator| place.ends_with(separator.letter()))?;
    let at = place.get(..place.len() - 1)?.parse().ok()?;
    Some((attribute, Place { at, separator }))
}

/// Takes the long lists out of a text. `None` if it has none.
pub(crate) fn divide(text: &str) -> Option<DividedText> {
    let (mut rest, mut lists, mut copied, mut at) = (String::new(), Vec::new(), 0, 0);
    while let Some(open) = memchr::memchr(b'[', text.as_bytes().get(at..)?).filter(|_| lists.len() < MAX_LISTS) {
        let from = at + open + 1;
        let (length, found) = read_list(&text.as_bytes()[from..]);
        at = from + length;
        if let Some((separator, numbers)) = found {
            rest.push_str(&text[copied..from]);
            lists.push(NumberList { place: Place { at: rest.len(), separator }, numbers });
            copied = at;
        }
    }
    if lists.is_empty() {
        return None;
    }
    rest.push_str(&text[copied..]);
    Some(DividedText { rest, lists })
}

/// Reads the numbers of a list up to its closing bracket. Returns the bytes that were read, and the list if it is long and
/// would be written the same.
fn read_list(text: &[u8]) -> (usize, Option<(Separator, Vec<i64>)>) {
    let (mut numbers, mut at, mut separator) = (Vec::new(), 0, None);
    while let Some((number, digits)) = read_number(&text[at..]) {
        numbers.push(number);
        at += digits;
        if text.get(at) == Some(&b']') {
            return (at, separator.filter(|_| numbers.len() >= MINIMUM_NUMBERS).map(|separator| (separator, numbers)));
        }
        let next = Separator::ALL.into_iter().find(|next| text[at..].starts_with(next.text().as_bytes()));
        let Some(next) = next.filter(|next| *next == *separator.get_or_insert(*next)) else { break };
        at += next.text().len();
    }
    (at, None)
}

/// A number of 32 bits without leading zeros, and its digits.
fn read_number(text: &[u8]) -> Option<(i64, usize)> {
    let digits = text.iter().take(MAX_DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..digits].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    let is_canonical = (1..=MAX_DIGITS).contains(&digits) && (text[0] != b'0' || digits == 1);
    (is_canonical && u32::try_from(number).is_ok()).then_some((number, digits))
}

/// The digits of the largest number.
const MAX_DIGITS: usize = 10;

/// Puts the lists that are stored beside a text back into it.
pub(crate) fn join(attributes: &mut Attributes) {
    let marked: Vec<String> = attributes.keys().filter(|name| is_marked(name)).cloned().collect();
    // A name that is not ours may be anything. In the order of names, the lists of a text follow each other by place.
    let mut lists = marked.iter().filter_map(|name| Some((name, place_of(name)?))).peekable();
    while let Some((name, (attribute, place))) = lists.next() {
        let mut of_text = vec![(name, place)];
        while let Some((name, (_, place))) = lists.next_if(|(_, (other, _))| *other == attribute) {
            of_text.push((name, place));
        }
        let whole =
            attributes.get(attribute).and_then(Value::as_str).and_then(|rest| joined(rest, &of_text, attributes));
        if let Some(whole) = whole {
            attributes.insert(attribute.to_owned(), whole.into());
            of_text.iter().for_each(|(name, _)| drop(attributes.remove(*name)));
        }
    }
}

/// The span with whole texts.
pub(crate) fn with_whole_texts(span: &Span) -> Cow<'_, Span> {
    if !span.attributes.keys().any(|name| is_marked(name)) {
        return Cow::Borrowed(span);
    }
    let mut whole = span.clone();
    join(&mut whole.attributes);
    Cow::Owned(whole)
}

/// The list that was behind the opening bracket at the index `at - 1` of the text of `attribute`. `None` if that text has its
/// list itself.
pub(crate) fn list_at<'a>(attributes: &'a Attributes, attribute: &str, at: usize) -> Option<&'a [i64]> {
    let names = Separator::ALL.into_iter().map(|separator| Place { at, separator }.name(attribute));
    names.filter_map(|name| attributes.get(&name)).find_map(|value| match value {
        Value::Ints(numbers) => Some(numbers.as_slice()),
        _ => None,
    })
}

/// How many lists of the text of `attribute` are apart from it.
pub(crate) fn lists_of(attributes: &Attributes, attribute: &str) -> usize {
    attributes.keys().filter(|name| is_marked(name) && attribute_of(name) == attribute).count()
}

/// Removes an attribute that is unreadable, or one of its lists is.
pub(crate) fn remove_parts(attributes: &mut Attributes, attribute: &str) {
    attributes.retain(|name, _| name != attribute && !(is_marked(name) && attribute_of(name) == attribute));
}

fn joined(rest: &str, lists: &[(&String, Place)], attributes: &Attributes) -> Option<String> {
    let (mut whole, mut copied, mut digits) = (String::with_capacity(rest.len()), 0, itoa::Buffer::new());
    for (name, Place { at, separator }) in lists {
        let Value::Ints(numbers) = attributes.get(*name)? else { return None };
        whole.push_str(rest.get(copied..*at)?);
        whole.reserve(numbers.len() * BYTES_PER_NUMBER);
        for (index, number) in numbers.iter().enumerate() {
            if index > 0 {
                whole.push_str(separator.text());
            }
            whole.push_str(digits.format(*number));
        }
        copied = *at;
    }
    whole.push_str(rest.get(copied..)?);
    Some(whole)
}

/// What a token id takes as text, about.
const BYTES_PER_NUMBER: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The text after it was divided, if it has long lists, and joined again.
    fn restored(text: &str) -> (usize, Value) {
        let Some(DividedText { rest, lists }) = divide(text) else { return (0, text.into()) };
        let mut attributes = Attributes::from([("body".to_owned(), rest.into()), ("bodyguard".to_owned(), 1.into())]);
        for list in &lists {
            attributes.insert(list.name("body"), Value::Ints(list.numbers.clone()));
        }
        join(&mut attributes);
        assert_eq!(attributes.len(), 2, "{attributes:?}");
        (lists.len(), attributes.remove("body").unwrap())
    }

    fn list(count: u32, separator: &str) -> String {
        let numbers: Vec<String> = (0..count).map(|number| (number * 7919 % 150_001).to_string()).collect();
        format!("[{}]", numbers.join(separator))
    }

    #[test]
    fn long_lists_are_taken_out_and_others_stay() {
        let ids = list(128, ",");
        let divided = divide(&format!(r#"{{"é":{ids},"b":[1,2],"c":{}}}"#, list(500, ", "))).unwrap();
        assert_eq!(divided.rest, r#"{"é":[],"b":[1,2],"c":[]}"#);
        assert_eq!(divided.lists.iter().map(|list| list.numbers.len()).collect::<Vec<_>>(), [128, 500]);
        for changed in [",00", ",-1", ", 1", ",4294967296", ",1.5", ",1e3", ",", ",]"] {
            let text = ids.replacen(',', &format!("{changed},"), 1);
            assert_eq!(divide(&text), None, "{text}");
        }
        assert_eq!(divide(&ids[..ids.len() - 1]), None);
        assert_eq!(divide(&list(127, ",")), None);
        assert_eq!(restored(&ids.replacen(',', ",4294967295,0,", 1)).0, 1);
    }

    #[test]
    fn names_of_others_stay_as_they_are() {
        let others = ["a", "a\u{1}", "a\u{1}x", "a\u{1}000000000009c", "b\u{1}000000000000c", "\u{1}"];
        let mut attributes: Attributes = others.iter().map(|name| ((*name).to_owned(), "text".into())).collect();
        let before = attributes.clone();
        join(&mut attributes);
        assert_eq!(attributes, before);
        let divided = divide(&list(128, ",")).unwrap();
        attributes.insert(divided.lists[0].name("c"), Value::Ints(divided.lists[0].numbers.clone()));
        let before = attributes.clone();
        join(&mut attributes);
        assert_eq!(attributes, before, "its text is missing");
    }

    proptest! {
        #[test]
        fn a_text_is_restored_byte_for_byte(
            parts in prop::collection::vec(("[\\[\\]{},\"a0-9é ]{0,20}", 0..300_u32, prop::bool::ANY), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let text: String = parts
                .iter()
                .map(|(text, count, spaced)| format!("{text}{}", list(*count, if *spaced { ", " } else { "," })))
                .collect();
            let long = parts.iter().filter(|(_, count, _)| *count >= 128).count();
            let (found, whole) = restored(&text);
            prop_assert!(found <= parts.len() && found + 1 >= usize::from(long > 0));
            prop_assert_eq!(whole.as_str(), Some(text.as_str()));
            let end = (0..=cut.index(text.len() + 1)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            for part in [&text[..end], &text[end..]] {
                let whole = restored(part).1;
                prop_assert_eq!(whole.as_str(), Some(part));
            }
        }
    }
}

//! A JSON value: borrowed where possible, with its fields in their order, and long lists of numbers packed where
//! [`super::json_builder`] built it.
//!
//! In packed form token ids take 4 bytes each, other numbers 8, and a list of alike objects or lists, such as logprobs, is
//! kept by column. Only lists of at least [`MIN_PACKED`] elements are packed, and lists of objects only within logprobs, so that
//! code that reads other lists can ignore the packed form. Nothing is lost but the difference between `1` and `1.0` in a table,
//! and how the text of an array divided it.

use super::number_array::NumberArray;
use std::borrow::Cow;
use std::sync::Arc;

/// A JSON value. Strings are borrowed from the text where they have no escapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// Any other number, as a double.
    Float(f64),
    /// What none of the others holds exactly, as JSON text: a whole number beyond an `i64`, or a value of a tool call with half
    /// of a surrogate pair. It is written as it is, and not read.
    Raw(Cow<'a, str>),
    /// A string, decoded: without its quotes and escapes.
    Text(Cow<'a, str>),
    /// A list of values of any kind.
    List(Vec<Self>),
    /// An object, with its fields in their order.
    Object(Vec<(Cow<'a, str>, Self)>),
    /// A long list in packed form; [`Json::list`] does not show its elements.
    Packed(Packed),
}

const NULL: Json<'static> = Json::Null;

impl<'a> Json<'a> {
    /// A field of an object. Null if there is none.
    pub fn get(&self, name: &str) -> &Self {
        match self {
            Self::Object(fields) => fields.iter().rev().find(|(key, _)| key == name).map_or(&NULL, |(_, value)| value),
            _ => &NULL,
        }
    }

    /// The first of these fields that is present and not null. Null if there is none.
    pub fn any(&self, names: &[&str]) -> &Self {
        names.iter().map(|name| self.get(name)).find(|value| !value.is_null()).unwrap_or(&NULL)
    }

    /// The field at the end of a path of field names. Null if there is none.
    pub fn at(&self, path: &[&str]) -> &Self {
        path.iter().fold(self, |value, name| value.get(name))
    }

    /// True for null, and for a field that is missing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text of a string. None for other types.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The text of a string that is not empty. None for other values.
    pub fn word(&self) -> Option<String> {
        self.text().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A whole number, also one that is written as `1.0`. None for other values.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is small")]
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
            _ => None,
        }
    }

    /// A number. None for other types.
    pub fn float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Raw(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A boolean. None for other types.
    pub fn bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The number of elements of a list, packed or not. 0 for other types.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::List(elements) => elements.len(),
            Self::Packed(packed) => packed.len(),
            _ => 0,
        }
    }

    /// An estimate of the bytes of memory that it takes beside its own place.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) => 0,
            Self::Text(text) | Self::Raw(text) => text.len(),
            Self::List(elements) => elements.iter().map(|element| size_of::<Self>() + element.memory_bytes()).sum(),
            Self::Object(fields) => {
                fields.iter().map(|(_, value)| size_of::<(Cow<'_, str>, Self)>() + value.memory_bytes()).sum()
            }
            Self::Packed(packed) => packed.memory_bytes(),
        }
    }

    /// The elements of a list that is not packed. Empty for other types.
    pub fn list(&self) -> &[Self] {
        if let Self::List(elements) = self { elements } else { &[] }
    }

    /// True for a list, packed or not, that begins with a number.
    pub(crate) fn is_number_list(&self) -> bool {
        match self {
            Self::List(elements) => elements.first().is_some_and(|first| first.int().is_some()),
            Self::Packed(packed) => !matches!(packed, Packed::Table(_) | Packed::Array(_)),
            _ => false,
        }
    }

    /// True for a list without elements.
    pub fn is_empty_list(&self) -> bool {
        matches!(self, Self::List(elements) if elements.is_empty())
    }

    /// The fields of an object. Empty for other types.
    pub fn fields(&self) -> &[(Cow<'a, str>, Self)] {
        if let Self::Object(fields) = self { fields } else { &[] }
    }

    /// True if an object has the field, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        self.fields().iter().any(|(key, _)| key == name)
    }

    /// The same value without borrowed text.
    pub fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Int(number) => Json::Int(number),
            Self::Float(number) => Json::Float(number),
            Self::Text(text) => Json::Text(Cow::Owned(text.into_owned())),
            Self::Raw(text) => Json::Raw(Cow::Owned(text.into_owned())),
            Self::List(elements) => Json::List(elements.into_iter().map(Json::into_owned).collect()),
            Self::Object(fields) => Json::Object(
                fields.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), value.into_owned())).collect(),
            ),
            Self::Packed(packed) => Json::Packed(packed),
        }
    }
}

/// A list in packed form.
#[derive(Clone, Debug, PartialEq)]
pub enum Packed {
    /// Whole numbers from 0 to 2³² − 1, written without fraction or exponent.
    Ids(Vec<u32>),
    /// Numbers with a fraction or exponent.
    Floats(Vec<f64>),
    /// Objects with the same keys, or lists of the same length.
    Table(Table),
    /// An array of numbers, from a field that is known to have one.
    Array(Arc<NumberArray>),
}

/// Rows that are alike, by column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The keys of the rows in their order; `None` if the rows are lists.
    keys: Option<Vec<Cow<'static, str>>>,
    columns: Vec<Column>,
    rows: usize,
}

/// The values of one key or position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Column {
    /// Only null so far.
    Nulls,
    /// Numbers; NaN for null.
    Numbers(Vec<f64>),
    /// Texts, one behind the other, and where each ends.
    Texts(String, Vec<usize>),
    /// Values of another type, or of several.
    Other(Vec<Json<'static>>),
}

impl Packed {
    /// The number of elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Floats(numbers) => numbers.len(),
            Self::Table(table) => table.rows,
            Self::Array(array) => array.rows(),
        }
    }

    /// An estimate of the bytes of memory in use.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len() * size_of::<u32>(),
            Self::Floats(numbers) => numbers.len() * size_of::<f64>(),
            Self::Table(table) => table.columns.iter().map(Column::memory_bytes).sum(),
            Self::Array(array) => array.memory_bytes(),
        }
    }

    /// The elements as values of their own.
    pub(crate) fn into_elements(self) -> Vec<Json<'static>> {
        match self {
            Self::Ids(ids) => ids.into_iter().map(|id| Json::Int(i64::from(id))).collect(),
            Self::Floats(numbers) => numbers.into_iter().map(number).collect(),
            Self::Table(table) => (0..table.rows).map(|row| table.row(row)).collect(),
            Self::Array(array) => array.numbers().map(Json::Int).collect(),
        }
    }
}

impl Table {
    /// A table with one row. `None`: the value is neither an object nor a list, or it is empty.
    pub(super) fn of(row: &Json<'static>) -> Option<Self> {
        let (keys, width) = match row {
            Json::Object(fields) => (Some(fields.iter().map(|(key, _)| key.clone()).collect()), fields.len()),
            Json::List(elements) => (None, elements.len()),
            _ => return None,
        };
        let mut table = Self { keys, columns: vec![Column::Nulls; width], rows: 0 };
        (width > 0 && table.push(row.clone()).is_ok()).then_some(table)
    }

    /// Adds a row. An error returns a row that is not like the others.
    pub(super) fn push(&mut self, row: Json<'static>) -> Result<(), Json<'static>> {
        let values: Vec<Json<'static>> = match (row, &self.keys) {
            (Json::Object(fields), Some(keys)) => {
                if fields.len() != keys.len() || fields.iter().zip(keys).any(|((name, _), key)| name != key) {
                    return Err(Json::Object(fields));
                }
                fields.into_iter().map(|(_, value)| value).collect()
            }
            (Json::List(elements), None) if elements.len() == self.columns.len() => elements,
            (row, _) => return Err(row),
        };
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.push(value, self.rows);
        }
        self.rows += 1;
        Ok(())
    }

    /// A table of objects with these keys, each with its column.
    pub(super) fn of_columns(columns: Vec<(Cow<'_, str>, Column)>, rows: usize) -> Self {
        let (keys, columns) = columns.into_iter().map(|(key, column)| (Cow::Owned(key.into_owned()), column)).unzip();
        Self { keys: Some(keys), columns, rows }
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The column of a key. `None`: the rows do not have it.
    pub(crate) fn column(&self, key: &str) -> Option<&Column> {
        let at = self.keys.as_ref()?.iter().rposition(|known| known == key)?;
        self.columns.get(at)
    }

    /// The column of a position, of rows that are lists.
    pub(crate) fn position(&self, at: usize) -> Option<&Column> {
        self.columns.get(at).filter(|_| self.keys.is_none())
    }

    pub(super) fn row(&self, at: usize) -> Json<'static> {
        let values = self.columns.iter().map(|column| column.get(at));
        match &self.keys {
            Some(keys) => Json::Object(keys.iter().cloned().zip(values).collect()),
            None => Json::List(values.collect()),
        }
    }

    /// An estimate of the bytes of memory of one more row like `row`.
    pub(super) fn row_bytes(row: &Json<'static>) -> usize {
        let value_bytes = |value: &Json<'static>| match value {
            Json::Text(text) => text.len() + size_of::<usize>(),
            Json::Null | Json::Bool(_) | Json::Int(_) | Json::Float(_) => size_of::<f64>(),
            other => other.memory_bytes(),
        };
        match row {
            Json::Object(fields) => fields.iter().map(|(_, value)| value_bytes(value)).sum(),
            Json::List(elements) => elements.iter().map(value_bytes).sum(),
            _ => 0,
        }
    }
}

impl Column {
    /// As [`Column::push`], of a text that is copied.
    pub(super) fn push_text(&mut self, text: &str, rows: usize) {
        if let Self::Texts(texts, ends) = self {
            texts.push_str(text);
            ends.push(texts.len());
        } else {
            self.push(Json::Text(Cow::Owned(text.to_owned())), rows);
        }
    }

    /// Adds the value of the next row; there are `rows` before it.
    pub(super) fn push(&mut self, value: Json<'static>, rows: usize) {
        let as_number = |value: &Json<'static>| if value.is_null() { Some(f64::NAN) } else { value.float() };
        match (&mut *self, value) {
            (Self::Nulls, Json::Null) => {}
            (Self::Nulls, value) if value.float().is_some() => {
                let mut numbers = vec![f64::NAN; rows];
                numbers.extend(value.float());
                *self = Self::Numbers(numbers);
            }
            (Self::Nulls, Json::Text(text)) if rows == 0 => {
                let end = text.len();
                *self = Self::Texts(text.into_owned(), vec![end]);
            }
            (Self::Nulls, value) => {
                let mut values = vec![Json::Null; rows];
                values.push(value);
                *self = Self::Other(values);
            }
            (Self::Numbers(numbers), value) if as_number(&value).is_some() => numbers.extend(as_number(&value)),
            (Self::Texts(texts, ends), Json::Text(text)) => {
                texts.push_str(&text);
                ends.push(texts.len());
            }
            (Self::Other(values), value) => values.push(value),
            (_, value) => {
                let mut values: Vec<Json<'static>> = (0..rows).map(|row| self.get(row)).collect();
                values.push(value);
                *self = Self::Other(values);
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Nulls => 0,
            Self::Numbers(numbers) => numbers.len() * size_of::<f64>(),
            Self::Texts(texts, ends) => texts.len() + ends.len() * size_of::<usize>(),
            Self::Other(values) => values.iter().map(|value| size_of::<Json<'_>>() + value.memory_bytes()).sum(),
        }
    }

    /// The value of a row; null beyond the last.
    pub(crate) fn get(&self, row: usize) -> Json<'static> {
        match self {
            Self::Nulls => Json::Null,
            Self::Numbers(numbers) => numbers.get(row).copied().map_or(Json::Null, number),
            Self::Texts(..) => self.text(row).map_or(Json::Null, |text| Json::Text(Cow::Owned(text.to_owned()))),
            Self::Other(values) => values.get(row).cloned().unwrap_or_default(),
        }
    }

    /// The text of a row. `None`: it has none.
    pub(crate) fn text(&self, row: usize) -> Option<&str> {
        match self {
            Self::Texts(texts, ends) => {
                let from = row.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or_default();
                texts.get(from..*ends.get(row)?)
            }
            Self::Other(values) => values.get(row)?.text(),
            Self::Nulls | Self::Numbers(_) => None,
        }
    }
}

fn number(number: f64) -> Json<'static> {
    if number.is_nan() { Json::Null } else { Json::Float(number) }
}

/// The fewest elements of a list that is packed.
pub(super) const MIN_PACKED: usize = 32;

#[cfg(test)]
mod tests;

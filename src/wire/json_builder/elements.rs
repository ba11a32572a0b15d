//! The elements of a list that is being built: values, or packed once there are enough of one kind.

use crate::wire::json::Json;
use crate::wire::json_ids::read_ids;
use crate::wire::json_value::{MIN_PACKED, Packed, Table};

/// The elements of a list that is being built.
#[derive(Debug)]
pub(super) enum Elements {
    Values(Vec<Json<'static>>),
    Packed(Packed),
}

impl Default for Elements {
    fn default() -> Self {
        Self::Values(Vec::new())
    }
}

impl Elements {
    /// Reads ids up to the last one that a comma follows at once, if this is a packed list of ids. Returns how many bytes
    /// those take, and the bytes of memory that this took.
    pub(super) fn push_ids(&mut self, bytes: &[u8]) -> (usize, usize) {
        let Self::Packed(Packed::Ids(ids)) = self else { return (0, 0) };
        let before = ids.len();
        let read = read_ids(ids, bytes);
        (read, (ids.len() - before) * size_of::<u32>())
    }

    /// The elements as one value: a list, or a packed list.
    pub(super) fn into_json(self) -> Json<'static> {
        match self {
            Self::Values(values) => Json::List(values),
            Self::Packed(packed) => Json::Packed(packed),
        }
    }

    /// Adds an element; with `is_table` alike ones become a table. Returns the bytes of memory that this took, and those that it freed.
    pub(super) fn push(&mut self, value: Json<'static>, is_table: bool) -> (usize, usize) {
        let value = match self {
            Self::Values(values) => {
                values.push(value);
                // Once: a list that can't be packed then stays as it is.
                if values.len() == MIN_PACKED {
                    let values = std::mem::take(values);
                    *self = pack(values, is_table);
                }
                return (VALUE_BYTES, 0);
            }
            Self::Packed(packed) => match push_packed(packed, value) {
                Ok(bytes) => return bytes,
                Err(value) => value,
            },
        };
        let Self::Packed(packed) = std::mem::replace(self, Self::Values(Vec::new())) else { return (0, 0) };
        let mut values = packed.into_elements();
        values.push(value);
        let bytes = values.len() * VALUE_BYTES;
        *self = Self::Values(values);
        (bytes, 0)
    }
}

fn pack(values: Vec<Json<'static>>, is_table: bool) -> Elements {
    let ids = values.iter().map(|value| if let Json::Int(id) = value { u32::try_from(*id).ok() } else { None });
    if let Some(ids) = ids.collect() {
        return Elements::Packed(Packed::Ids(ids));
    }
    let numbers = values.iter().map(|value| if let Json::Float(number) = value { Some(*number) } else { None });
    if let Some(numbers) = numbers.collect() {
        return Elements::Packed(Packed::Floats(numbers));
    }
    if is_table
        && let Some(mut table) = values.first().and_then(Table::of)
        && values[1..].iter().all(|row| table.push(row.clone()).is_ok())
    {
        return Elements::Packed(Packed::Table(table));
    }
    Elements::Values(values)
}

/// Adds an element to a packed list. Returns the bytes of memory that this took, and those that it freed; an error returns
/// an element that does not fit.
fn push_packed(packed: &mut Packed, value: Json<'static>) -> Result<(usize, usize), Json<'static>> {
    match packed {
        Packed::Ids(ids) => {
            let id = if let Json::Int(id) = value { u32::try_from(id).ok() } else { None };
            ids.push(id.ok_or(value)?);
            Ok((size_of::<u32>(), 0))
        }
        Packed::Floats(numbers) => {
            numbers.push(if let Json::Float(number) = value { Some(number) } else { None }.ok_or(value)?);
            Ok((size_of::<f64>(), 0))
        }
        Packed::Table(table) => {
            let bytes = (Table::row_bytes(&value), value.memory_bytes());
            table.push(value).map(|()| bytes)
        }
        // It is not built from elements.
        Packed::Array(_) => Err(value),
    }
}

const VALUE_BYTES: usize = size_of::<Json<'_>>();

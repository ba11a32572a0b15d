//! A column: where its values come from, and the builder that collects them.

use super::table::TableError;
use crate::trajectory::TrainingRow;
use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder,
    ListBuilder, StringBuilder,
};
use arrow_schema::{DataType, Field};
use std::borrow::Cow;
use std::sync::Arc;

/// Reads one value of a row.
type Get<T> = fn(&TrainingRow) -> T;

/// A column of one type.
pub(super) enum Column {
    Text(for<'a> fn(&'a TrainingRow) -> Option<&'a str>, StringBuilder),
    Texts(for<'a> fn(&'a TrainingRow) -> Vec<&'a str>, ListBuilder<StringBuilder>),
    Int(Get<i64>, Int64Builder),
    Ints(for<'a> fn(&'a TrainingRow) -> Cow<'a, [i64]>, ListBuilder<Int64Builder>),
    Float(Get<Option<f64>>, Float64Builder),
    Floats(for<'a> fn(&'a TrainingRow) -> Option<&'a [f32]>, ListBuilder<Float32Builder>),
    Flag(Get<bool>, BooleanBuilder),
    TokenIds(for<'a> fn(&'a TrainingRow) -> &'a [u32], ListBuilder<Int32Builder>),
    Bytes(for<'a> fn(&'a TrainingRow) -> Option<Cow<'a, [u8]>>, BinaryBuilder),
}

impl Column {
    pub(super) fn text(get: for<'a> fn(&'a TrainingRow) -> Option<&'a str>) -> Self {
        Self::Text(get, StringBuilder::new())
    }

    pub(super) fn texts(get: for<'a> fn(&'a TrainingRow) -> Vec<&'a str>) -> Self {
        Self::Texts(get, list(StringBuilder::new(), DataType::Utf8))
    }

    pub(super) fn int(get: Get<i64>) -> Self {
        Self::Int(get, Int64Builder::new())
    }

    pub(super) fn ints(get: for<'a> fn(&'a TrainingRow) -> Cow<'a, [i64]>) -> Self {
        Self::Ints(get, list(Int64Builder::new(), DataType::Int64))
    }

    pub(super) fn float(get: Get<Option<f64>>) -> Self {
        Self::Float(get, Float64Builder::new())
    }

    pub(super) fn floats(get: for<'a> fn(&'a TrainingRow) -> Option<&'a [f32]>) -> Self {
        Self::Floats(get, list(Float32Builder::new(), DataType::Float32))
    }

    pub(super) fn flag(get: Get<bool>) -> Self {
        Self::Flag(get, BooleanBuilder::new())
    }

    pub(super) fn token_ids(get: for<'a> fn(&'a TrainingRow) -> &'a [u32]) -> Self {
        Self::TokenIds(get, list(Int32Builder::new(), DataType::Int32))
    }

    pub(super) fn bytes(get: for<'a> fn(&'a TrainingRow) -> Option<Cow<'a, [u8]>>) -> Self {
        Self::Bytes(get, BinaryBuilder::new())
    }

    /// Adds the value of a row.
    pub(super) fn add(&mut self, row: &TrainingRow) -> Result<(), TableError> {
        match self {
            Self::Text(get, builder) => builder.append_option(get(row)),
            Self::Texts(get, builder) => builder.append_value(get(row).into_iter().map(Some)),
            Self::Int(get, builder) => builder.append_value(get(row)),
            Self::Ints(get, builder) => {
                builder.values().append_slice(&get(row));
                builder.append(true);
            }
            Self::Float(get, builder) => builder.append_option(get(row)),
            Self::Floats(get, builder) => {
                let values = get(row);
                builder.values().append_slice(values.unwrap_or_default());
                builder.append(values.is_some());
            }
            Self::Flag(get, builder) => builder.append_value(get(row)),
            Self::TokenIds(get, builder) => {
                let id = |id: &u32| {
                    i32::try_from(*id).map_err(|_| TableError::TokenId { id: *id, rollout: row.rollout_id.clone() })
                };
                let ids: Vec<i32> = get(row).iter().map(id).collect::<Result<_, _>>()?;
                builder.values().append_slice(&ids);
                builder.append(true);
            }
            Self::Bytes(get, builder) => builder.append_option(get(row)),
        }
        Ok(())
    }

    /// The values so far.
    pub(super) fn take(&mut self) -> ArrayRef {
        match self {
            Self::Text(_, builder) => Arc::new(builder.finish()),
            Self::Texts(_, builder) => Arc::new(builder.finish()),
            Self::Int(_, builder) => Arc::new(builder.finish()),
            Self::Ints(_, builder) => Arc::new(builder.finish()),
            Self::Float(_, builder) => Arc::new(builder.finish()),
            Self::Floats(_, builder) => Arc::new(builder.finish()),
            Self::Flag(_, builder) => Arc::new(builder.finish()),
            Self::TokenIds(_, builder) => Arc::new(builder.finish()),
            Self::Bytes(_, builder) => Arc::new(builder.finish()),
        }
    }
}

/// Lists. Their elements have the name that the Parquet specification gives them.
fn list<B: ArrayBuilder>(values: B, data_type: DataType) -> ListBuilder<B> {
    ListBuilder::new(values).with_field(Field::new("element", data_type, true))
}

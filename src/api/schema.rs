//! Schemas of bodies for the OpenAPI document, from the types that utoipa describes.

use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, Schema, SchemaType, Type};
use utoipa::openapi::{AllOfBuilder, ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr};

/// The named schemas of a document (`components.schemas`).
#[derive(Default)]
pub(super) struct Schemas {
    by_name: BTreeMap<String, RefOr<Schema>>,
    conflicts: Vec<String>,
}

/// Describes a body; adds the named schemas that the description refers to.
pub(super) type BodySchema = fn(&mut Schemas) -> RefOr<Schema>;

impl Schemas {
    fn add(&mut self, name: String, schema: RefOr<Schema>) {
        match self.by_name.get(&name) {
            Some(known) if *known != schema => self.conflicts.push(name),
            Some(_) => {}
            None => drop(self.by_name.insert(name, schema)),
        }
    }

    /// The schemas by name.
    pub(super) fn into_components(self) -> impl Iterator<Item = (String, RefOr<Schema>)> {
        debug_assert!(self.conflicts.is_empty(), "different types have these names: {:?}", self.conflicts);
        self.by_name.into_iter()
    }
}

/// A `T`, by reference.
pub(super) fn one<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    parts.into_iter().for_each(|(name, schema)| schemas.add(name, schema));
    schemas.add(T::name().into_owned(), T::schema());
    Ref::from_schema_name(T::name()).into()
}

/// An array of `T`.
pub(super) fn list<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    ArrayBuilder::new().items(one::<T>(schemas)).into()
}

/// A `T`, or an array of `T`.
pub(super) fn one_or_list<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    OneOfBuilder::new().item(one::<T>(schemas)).item(list::<T>(schemas)).into()
}

/// A `T` or null.
pub(super) fn nullable<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    let null = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null));
    OneOfBuilder::new().item(one::<T>(schemas)).item(null).into()
}

/// The fields of both types in one object.
pub(super) fn both<T: ToSchema, U: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    AllOfBuilder::new().item(one::<T>(schemas)).item(one::<U>(schemas)).into()
}

/// A page of a listing of Agent Lightning 0.3.
pub(super) fn page<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    let integer = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
    let mut page = ObjectBuilder::new().property("items", list::<T>(schemas)).required("items");
    for name in ["limit", "offset", "total"] {
        page = page.property(name, integer()).required(name);
    }
    page.into()
}

/// Any object.
pub(super) fn object(_: &mut Schemas) -> RefOr<Schema> {
    ObjectBuilder::new().additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true))).into()
}

/// Text that is not JSON.
pub(super) fn text(_: &mut Schemas) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).into()
}

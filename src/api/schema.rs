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

    /// Returns the schemas with their names, sorted by name. Two types with one name are a bug, which debug builds find.
    pub(super) fn into_components(self) -> impl Iterator<Item = (String, RefOr<Schema>)> {
        debug_assert!(self.conflicts.is_empty(), "different types have these names: {:?}", self.conflicts);
        self.by_name.into_iter()
    }
}

/// Describes a body that is one `T`, by a reference to its named schema.
pub(super) fn one<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    parts.into_iter().for_each(|(name, schema)| schemas.add(name, schema));
    schemas.add(T::name().into_owned(), T::schema());
    Ref::from_schema_name(T::name()).into()
}

/// Describes a body that is an array of `T`.
pub(super) fn list<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    ArrayBuilder::new().items(one::<T>(schemas)).into()
}

/// Describes a body that is one `T` or an array of `T`.
pub(super) fn one_or_list<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    OneOfBuilder::new().item(one::<T>(schemas)).item(list::<T>(schemas)).into()
}

/// Describes a body that is one `T` or null.
pub(super) fn nullable<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    let null = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null));
    OneOfBuilder::new().item(one::<T>(schemas)).item(null).into()
}

/// Describes a body that is an object with the fields of both types.
pub(super) fn both<T: ToSchema, U: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    AllOfBuilder::new().item(one::<T>(schemas)).item(one::<U>(schemas)).into()
}

/// Describes a page of a listing, as Agent Lightning 0.3 has it: `T`s, and the place of the page in the whole.
pub(super) fn page<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    let integer = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
    let mut page = ObjectBuilder::new().property("items", list::<T>(schemas)).required("items");
    for name in ["limit", "offset", "total"] {
        page = page.property(name, integer()).required(name);
    }
    page.into()
}

/// Describes a body that is a JSON object with any fields.
pub(super) fn object(_: &mut Schemas) -> RefOr<Schema> {
    ObjectBuilder::new().additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true))).into()
}

/// Describes a body that is text, not JSON.
pub(super) fn text(_: &mut Schemas) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).into()
}

//! Gemini's schemas become JSON Schemas.
//!
//! A schema is reworded, not checked.

use crate::llm::json_object::IntoJson;
use crate::wire::json::Json;
use std::borrow::Cow;

/// Translates a schema, and every schema in it.
pub(super) fn schema<'a>(json: &'a Json<'a>) -> Json<'a> {
    match json {
        Json::List(list) => Json::List(list.iter().map(schema).collect()),
        Json::Object(fields) => {
            let may_be_null = json.get("nullable").bool() == Some(true);
            let fields = fields.iter().filter_map(|(name, value)| {
                let name = camel(name);
                let value = match &*name {
                    "type" if may_be_null => nullable(kind(value)),
                    "type" => kind(value),
                    // Both are expressed otherwise: by the type, and by the order of the properties.
                    "nullable" if json.get("type").text().is_some() => return None,
                    "propertyOrdering" => return None,
                    "properties" => properties(value, json),
                    "$defs" | "defs" => properties(value, &Json::Null),
                    "items" | "prefixItems" | "anyOf" | "additionalProperties" => schema(value),
                    // Google's JSON has 64-bit numbers as strings.
                    "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties" => {
                        let number = value.text().and_then(|text| text.parse().ok());
                        number.map_or_else(|| value.clone(), Json::Int)
                    }
                    _ => value.clone(),
                };
                Some((name, value))
            });
            Json::Object(fields.collect())
        }
        other => other.clone(),
    }
}

/// A JSON Schema with types as JSON Schema spells them: clients also write Gemini's names into it.
pub(super) fn lower_case_types<'a>(json: &'a Json<'a>) -> Json<'a> {
    match json {
        Json::List(list) => Json::List(list.iter().map(lower_case_types).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                let value = match &**name {
                    "type" => match value {
                        Json::List(kinds) => Json::List(kinds.iter().map(kind).collect()),
                        single => kind(single),
                    },
                    // Names of properties, not words of a schema.
                    "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
                        let named = value.fields().iter();
                        let named = named.map(|(name, schema)| (Cow::Borrowed(&**name), lower_case_types(schema)));
                        if matches!(value, Json::Object(_)) { Json::Object(named.collect()) } else { value.clone() }
                    }
                    "enum" | "const" | "default" | "examples" | "required" => value.clone(),
                    _ => lower_case_types(value),
                };
                (Cow::Borrowed(&**name), value)
            });
            Json::Object(fields.collect())
        }
        other => other.clone(),
    }
}

/// `STRING` as `string`.
fn kind<'a>(value: &'a Json<'a>) -> Json<'a> {
    value.text().map_or_else(|| value.clone(), |kind| kind.to_ascii_lowercase().into_json())
}

/// A type that may be null as well.
fn nullable(kind: Json<'_>) -> Json<'_> {
    if kind.text().is_some() { Json::List(vec![kind, "null".into_json()]) } else { kind }
}

/// Named schemas, in the order that the schema around them requires.
fn properties<'a>(json: &'a Json<'a>, around: &Json<'_>) -> Json<'a> {
    let ordering = around.any(&["propertyOrdering", "property_ordering"]).list();
    let place = |name: &str| ordering.iter().position(|known| known.text() == Some(name)).unwrap_or(usize::MAX);
    let mut fields: Vec<_> =
        json.fields().iter().map(|(name, value)| (Cow::Borrowed(&**name), schema(value))).collect();
    fields.sort_by_key(|(name, _)| place(name));
    Json::Object(fields)
}

/// `in_snake_case` as `inSnakeCase`.
fn camel(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len());
    for (index, word) in name.split('_').enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if index > 0 => {
                out.push(first.to_ascii_uppercase());
                out.push_str(letters.as_str());
            }
            _ => out.push_str(word),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::json_object::text_of;
    use crate::wire::json::parse;

    #[test]
    fn a_schema_is_reworded_but_not_its_names() {
        let theirs = br#"{
            "type": "OBJECT",
            "property_ordering": ["z", "type"],
            "properties": {
                "type": {"type": "STRING", "nullable": true, "enum": ["A"], "maxLength": "9"},
                "more": {"any_of": [{"type": "NUMBER"}, {"type": "ARRAY", "items": {"type": "INTEGER"}}]},
                "z": {"type": "BOOLEAN", "default": {"type": "STRING"}}
            },
            "required": ["type"]
        }"#;
        let ours = concat!(
            r#"{"type":"object","properties":{"z":{"type":"boolean","default":{"type":"STRING"}},"#,
            r#""type":{"type":["string","null"],"enum":["A"],"maxLength":9},"#,
            r#""more":{"anyOf":[{"type":"number"},{"type":"array","items":{"type":"integer"}}]}},"required":["type"]}"#,
        );
        assert_eq!(text_of(&schema(&parse(theirs).unwrap())), ours);
    }
}

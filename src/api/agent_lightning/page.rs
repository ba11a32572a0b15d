//! Filters, order and pages of listings, over the JSON of the items: one way for all nouns.

use super::{Answer, Refusal};
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as JsonValue, json};
use std::cmp::Ordering;

/// What every listing takes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Paging {
    limit: i64,
    offset: i64,
    sort_by: Option<String>,
    sort_order: Order,
    filter_logic: Logic,
}

impl Default for Paging {
    fn default() -> Self {
        Self { limit: -1, offset: 0, sort_by: None, sort_order: Order::Asc, filter_logic: Logic::And }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    Asc,
    Desc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Logic {
    And,
    Or,
}

/// What a field must be.
pub(super) enum Test {
    /// One of these.
    In(Vec<String>),
    /// This.
    Is(String),
    /// Something with this in it.
    Contains(String),
}

/// Conditions that were given; one that was not does not count.
#[derive(Default)]
pub(super) struct Filter(Vec<(&'static str, Test)>);

impl Filter {
    pub(super) fn one_of(mut self, field: &'static str, list: Option<Vec<String>>) -> Self {
        self.0.extend(list.map(|list| (field, Test::In(list))));
        self
    }

    pub(super) fn is(mut self, field: &'static str, text: Option<String>) -> Self {
        self.0.extend(text.map(|text| (field, Test::Is(text))));
        self
    }

    pub(super) fn contains(mut self, field: &'static str, text: Option<String>) -> Self {
        self.0.extend(text.map(|text| (field, Test::Contains(text))));
        self
    }

    /// True when everything is let through.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn lets_through(&self, item: &JsonValue, logic: Logic) -> bool {
        let holds = |(field, test): &(&str, Test)| {
            let text = item[*field].as_str();
            match test {
                Test::In(list) => text.is_some_and(|text| list.iter().any(|one| one == text)),
                Test::Is(wanted) => text == Some(wanted),
                Test::Contains(part) => text.is_some_and(|text| text.contains(part.as_str())),
            }
        };
        match logic {
            _ if self.0.is_empty() => true,
            Logic::And => self.0.iter().all(holds),
            Logic::Or => self.0.iter().any(holds),
        }
    }
}

impl Paging {
    /// Checks what can be wrong, in the order and the words of Agent Lightning. `fields`: those of the model.
    pub(super) fn check(&self, fields: &[&str]) -> Answer<()> {
        if let Some(field) = self.sort_by.as_ref().filter(|field| !fields.contains(&field.as_str())) {
            let allowed = fields.join(", ");
            return Err(Refusal::Invalid(format!("Invalid sort_by: {field}, allowed fields are: {allowed}")));
        }
        if self.limit == 0 || self.limit < -1 {
            return Err(Refusal::Invalid("Limit must be greater than 0 or -1 for no limit".to_owned()));
        }
        if self.offset < 0 {
            return Err(Refusal::Invalid("Offset must be greater than or equal to 0".to_owned()));
        }
        Ok(())
    }

    /// The order that a listing has if nobody asks for another.
    pub(super) fn or_sorted_by(self, field: &str) -> Self {
        Self { sort_by: self.sort_by.or_else(|| Some(field.to_owned())), ..self }
    }

    /// The page of `items`.
    pub(super) fn page(&self, items: Vec<JsonValue>, filter: &Filter) -> JsonValue {
        let mut kept: Vec<JsonValue> =
            items.into_iter().filter(|item| filter.lets_through(item, self.filter_logic)).collect();
        if let Some(field) = &self.sort_by {
            kept.sort_by(|a, b| compare(field, &a[field.as_str()], &b[field.as_str()]));
        }
        if self.sort_order == Order::Desc && self.sort_by.is_some() {
            kept.reverse();
        }
        self.page_of(&kept, JsonValue::clone)
    }

    /// True when the order asked for is that of a field, rising.
    pub(super) fn is_by(&self, field: &str) -> bool {
        self.sort_by.as_deref() == Some(field) && self.sort_order == Order::Asc
    }

    /// The page of items that are in order.
    pub(super) fn page_of<T>(&self, items: &[T], json: fn(&T) -> JsonValue) -> JsonValue {
        let page: Vec<JsonValue> = self.part(items).iter().map(json).collect();
        json!({ "items": page, "limit": self.limit, "offset": self.offset, "total": items.len() })
    }

    fn part<'a, T>(&self, items: &'a [T]) -> &'a [T] {
        let offset = usize::try_from(self.offset).unwrap_or(0).min(items.len());
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        &items[offset..items.len().min(offset.saturating_add(limit))]
    }

    /// True when both conditions and order let the store choose what to read.
    pub(super) fn is_and(&self) -> bool {
        self.filter_logic == Logic::And
    }
}

/// Null is the end of times, and the start of everything else.
fn compare(field: &str, a: &JsonValue, b: &JsonValue) -> Ordering {
    let number =
        |value: &JsonValue| value.as_f64().unwrap_or(if field.ends_with("_time") { f64::INFINITY } else { 0.0 });
    match (a, b) {
        _ if field.ends_with("_time") || a.is_number() || b.is_number() => number(a).total_cmp(&number(b)),
        (JsonValue::String(_) | JsonValue::Null, JsonValue::String(_) | JsonValue::Null) => {
            a.as_str().unwrap_or_default().cmp(b.as_str().unwrap_or_default())
        }
        _ => a.to_string().cmp(&b.to_string()),
    }
}

/// A query string as the JSON form of the same request: names in `lists` may come several times, those in `numbers` are
/// whole numbers.
pub(super) fn from_query<T: DeserializeOwned>(query: Option<&str>, lists: &[&str]) -> Answer<(T, Paging)> {
    let mut object = serde_json::Map::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let value = match &*name {
            "limit" | "offset" => {
                let number = value.parse::<i64>().map_err(|_| Refusal::Schema {
                    place: vec!["query".to_owned(), name.to_string()],
                    message: "Input should be a valid integer, unable to parse string as an integer".to_owned(),
                })?;
                json!(number)
            }
            _ => json!(value),
        };
        match object.entry(name.to_string()) {
            serde_json::map::Entry::Occupied(mut known) if lists.contains(&&*name) => {
                if let Some(list) = known.get_mut().as_array_mut() {
                    list.push(value);
                }
            }
            entry => {
                let value = if lists.contains(&&*name) { json!([value]) } else { value };
                match entry {
                    serde_json::map::Entry::Vacant(free) => drop(free.insert(value)),
                    serde_json::map::Entry::Occupied(mut known) => drop(known.insert(value)),
                }
            }
        }
    }
    let object = JsonValue::Object(object);
    Ok((typed(&object)?, typed(&object)?))
}

fn typed<T: DeserializeOwned>(query: &JsonValue) -> Answer<T> {
    serde_path_to_error::deserialize(query).map_err(|error| {
        let path = error.path().iter().map(ToString::to_string);
        let place = std::iter::once("query".to_owned()).chain(path).collect();
        Refusal::Schema { place, message: error.into_inner().to_string() }
    })
}

/// Items as JSON, for filters and order.
pub(super) fn json_of<T: Serialize>(items: &[T]) -> Vec<JsonValue> {
    items.iter().map(|item| serde_json::to_value(item).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(paging: JsonValue, filter: &Filter) -> Vec<i64> {
        let items = vec![
            json!({ "n": 1, "name": "b", "end_time": 5.0, "sequence_id": 3 }),
            json!({ "n": 2, "name": null, "end_time": null, "sequence_id": null }),
            json!({ "n": 3, "name": "ab", "end_time": 1.0, "sequence_id": 2 }),
        ];
        let paging: Paging = serde_json::from_value(paging).unwrap();
        let page = paging.page(items, filter);
        page["items"].as_array().unwrap().iter().map(|item| item["n"].as_i64().unwrap()).collect()
    }

    #[test]
    fn null_sorts_last_among_times_and_first_elsewhere() {
        let all = Filter::default();
        assert_eq!(page(json!({}), &all), [1, 2, 3]);
        assert_eq!(page(json!({ "sort_by": "end_time" }), &all), [3, 1, 2]);
        assert_eq!(page(json!({ "sort_by": "end_time", "sort_order": "desc" }), &all), [2, 1, 3]);
        assert_eq!(page(json!({ "sort_by": "name" }), &all), [2, 3, 1]);
        assert_eq!(page(json!({ "sort_by": "sequence_id" }), &all), [2, 3, 1]);
        assert_eq!(page(json!({ "sort_by": "n", "limit": 1, "offset": 1 }), &all), [2]);
    }

    #[test]
    fn conditions_are_pooled() {
        let both = |logic: &str| {
            let filter = Filter::default().contains("name", Some("b".into())).is("name", Some("ab".into()));
            page(json!({ "filter_logic": logic }), &filter)
        };
        assert_eq!((both("and"), both("or")), (vec![3], vec![1, 3]));
        assert_eq!(page(json!({}), &Filter::default().one_of("name", Some(Vec::new()))), Vec::<i64>::new());
        assert_eq!(page(json!({}), &Filter::default().one_of("name", None)), [1, 2, 3]);
    }

    #[test]
    fn queries_become_json_and_say_what_is_wrong() {
        let (read, _) = from_query::<JsonValue>(Some("a=1&b=x%20y&a=2&limit=3&c=1&c=2"), &["a"]).unwrap();
        assert_eq!(read, json!({ "a": ["1", "2"], "b": "x y", "limit": 3, "c": "2" }));
        assert!(matches!(from_query::<JsonValue>(Some("limit=x"), &[]), Err(Refusal::Schema { .. })));
        let order = from_query::<JsonValue>(Some("sort_order=up"), &[]).unwrap_err();
        assert!(matches!(order, Refusal::Schema { place, .. } if place == ["query", "sort_order"]));
        let paging = |text: &str| from_query::<JsonValue>(Some(text), &[]).unwrap().1.check(&["a", "b"]).is_ok();
        assert_eq!(
            ["limit=0", "limit=-2", "offset=-1", "sort_by=c", "sort_by=a&limit=-1"].map(paging),
            [false, false, false, false, true]
        );
    }
}

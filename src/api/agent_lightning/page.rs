//! Filters, order and pages of listings, on the JSON of the items, so that every kind of item is treated alike.

use crate::api::request_json::{query_json, read, typed};
use crate::api::respond::{ApiError, ApiResult};
use crate::store::RolloutOrder;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as JsonValue, json};
use std::cmp::Ordering;
use utoipa::{IntoParams, ToSchema};

/// The parameters of every listing, in its query or its body.
#[derive(Clone, Debug, Deserialize, IntoParams, ToSchema)]
#[serde(default)]
pub(super) struct Paging {
    /// Items of a page, at least 1; -1: all.
    limit: i64,
    /// Items before the page.
    offset: i64,
    /// The field to sort by; absent: the order of the store.
    sort_by: Option<String>,
    #[param(inline)]
    #[schema(inline)]
    sort_order: SortOrder,
    /// Whether an item must meet all conditions or one of them.
    #[param(inline)]
    #[schema(inline)]
    filter_logic: FilterLogic,
}

impl Default for Paging {
    fn default() -> Self {
        Self { limit: -1, offset: 0, sort_by: None, sort_order: SortOrder::Asc, filter_logic: FilterLogic::And }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SortOrder {
    Asc,
    Desc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum FilterLogic {
    And,
    Or,
}

/// A condition on a text field.
enum Condition {
    OneOf(Vec<String>),
    Is(String),
    Contains(String),
}

/// The conditions of a listing, by field. Without conditions every item matches.
#[derive(Default)]
pub(super) struct Filter(Vec<(&'static str, Condition)>);

impl Filter {
    pub(super) fn one_of(mut self, field: &'static str, list: Option<Vec<String>>) -> Self {
        self.0.extend(list.map(|list| (field, Condition::OneOf(list))));
        self
    }

    pub(super) fn is(mut self, field: &'static str, text: Option<String>) -> Self {
        self.0.extend(text.map(|text| (field, Condition::Is(text))));
        self
    }

    pub(super) fn contains(mut self, field: &'static str, text: Option<String>) -> Self {
        self.0.extend(text.map(|text| (field, Condition::Contains(text))));
        self
    }

    /// True when every item matches.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn matches(&self, item: &JsonValue, logic: FilterLogic) -> bool {
        let holds = |(field, condition): &(&str, Condition)| {
            let text = item[*field].as_str();
            match condition {
                Condition::OneOf(list) => text.is_some_and(|text| list.iter().any(|one| one == text)),
                Condition::Is(wanted) => text == Some(wanted),
                Condition::Contains(part) => text.is_some_and(|text| text.contains(part.as_str())),
            }
        };
        match logic {
            _ if self.0.is_empty() => true,
            FilterLogic::And => self.0.iter().all(holds),
            FilterLogic::Or => self.0.iter().any(holds),
        }
    }
}

impl Paging {
    /// Checks the values in the order and with the texts of Agent Lightning. Items can be sorted by `fields`.
    pub(super) fn check(&self, fields: &[&str]) -> ApiResult<()> {
        if let Some(field) = self.sort_by.as_ref().filter(|field| !fields.contains(&field.as_str())) {
            let allowed = fields.join(", ");
            return Err(ApiError::Invalid(format!("Invalid sort_by: {field}, allowed fields are: {allowed}")));
        }
        if self.limit == 0 || self.limit < -1 {
            return Err(ApiError::Invalid("Limit must be greater than 0 or -1 for no limit".to_owned()));
        }
        if self.offset < 0 {
            return Err(ApiError::Invalid("Offset must be greater than or equal to 0".to_owned()));
        }
        Ok(())
    }

    /// Sorts by `field` unless the request names another.
    pub(super) fn sorted_by_default(self, field: &str) -> Self {
        Self { sort_by: self.sort_by.or_else(|| Some(field.to_owned())), ..self }
    }

    /// Filters and sorts `items`, and returns the page.
    pub(super) fn page(&self, items: Vec<JsonValue>, filter: &Filter) -> JsonValue {
        let mut kept: Vec<JsonValue> = items.into_iter().filter(|item| self.keeps(item, filter)).collect();
        self.sort(&mut kept, |item, field| &item[field]);
        self.read_page(self.part(&kept).to_vec(), kept.len() as u64)
    }

    /// True for an item that meets the conditions.
    pub(super) fn keeps(&self, item: &JsonValue, filter: &Filter) -> bool {
        filter.matches(item, self.filter_logic)
    }

    /// Sorts items by their values of the field that the listing is sorted by.
    pub(super) fn sort<T>(&self, items: &mut [T], value: impl for<'a> Fn(&'a T, &str) -> &'a JsonValue) {
        let Some(field) = &self.sort_by else { return };
        items.sort_by(|a, b| compare(field, value(a, field), value(b, field)));
        if self.sort_order == SortOrder::Desc {
            items.reverse();
        }
    }

    /// The field that the listing is sorted by. `None`: the order of the store.
    pub(super) fn sort_field(&self) -> Option<&str> {
        self.sort_by.as_deref()
    }

    /// The items of the page.
    pub(super) fn part<'a, T>(&self, items: &'a [T]) -> &'a [T] {
        let offset = usize::try_from(self.offset).unwrap_or(0).min(items.len());
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        &items[offset..items.len().min(offset.saturating_add(limit))]
    }

    /// The order of a listing that the store can sort: one without a field, or by the store's own.
    pub(super) fn order_by(&self, stores_field: &str) -> Option<RolloutOrder> {
        match (self.sort_by.as_deref(), self.sort_order) {
            (None, _) => Some(RolloutOrder::OldestFirst),
            (Some(field), SortOrder::Asc) if field == stores_field => Some(RolloutOrder::OldestFirst),
            (Some(field), SortOrder::Desc) if field == stores_field => Some(RolloutOrder::NewestFirst),
            _ => None,
        }
    }

    /// The most items of the page, `None` for all, and the items before it.
    pub(super) fn limits(&self) -> (Option<usize>, usize) {
        (usize::try_from(self.limit).ok(), usize::try_from(self.offset).unwrap_or(0))
    }

    /// A page that the store has read, of `total` items.
    fn read_page(&self, items: Vec<JsonValue>, total: u64) -> JsonValue {
        json!({ "items": items, "limit": self.limit, "offset": self.offset, "total": total })
    }

    /// What follows the items of a page in its JSON.
    pub(super) fn rest_of_page(&self, total: u64) -> String {
        format!(",\"limit\":{},\"offset\":{},\"total\":{total}}}", self.limit, self.offset)
    }

    /// True when items must meet all conditions, so that the store need not read items that miss one.
    pub(super) fn requires_all(&self) -> bool {
        self.filter_logic == FilterLogic::And
    }
}

/// The order of two values of a field. Null sorts last among times, like 0 among other numbers, and first among texts.
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

/// The conditions and the page of a body.
pub(super) fn from_body<T: DeserializeOwned>(body: &Bytes) -> ApiResult<(T, Paging)> {
    Ok((read(body)?, read(body)?))
}

/// The conditions and the page of a query, read as the body with the same fields. Fields in `lists` become arrays, also
/// if they occur once; of others the last value counts.
pub(super) fn from_query<T: DeserializeOwned>(query: Option<&str>, lists: &[&str]) -> ApiResult<(T, Paging)> {
    let object = query_json(query, lists);
    Ok((typed("query", &object)?, typed("query", &object)?))
}

/// Items as JSON, for [`Paging::page`].
pub(super) fn to_json<T: Serialize>(items: &[T]) -> Vec<JsonValue> {
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
    fn conditions_are_combined() {
        let both = |logic: &str| {
            let filter = Filter::default().contains("name", Some("b".into())).is("name", Some("ab".into()));
            page(json!({ "filter_logic": logic }), &filter)
        };
        assert_eq!((both("and"), both("or")), (vec![3], vec![1, 3]));
        assert_eq!(page(json!({}), &Filter::default().one_of("name", Some(Vec::new()))), Vec::<i64>::new());
        assert_eq!(page(json!({}), &Filter::default().one_of("name", None)), [1, 2, 3]);
    }

    #[test]
    fn queries_are_read_as_bodies() {
        let (read, _) = from_query::<JsonValue>(Some("a=1&b=x%20y&a=2&limit=3&c=1&c=2"), &["a"]).unwrap();
        assert_eq!(read, json!({ "a": ["1", "2"], "b": "x y", "limit": "3", "c": "2" }));
        assert!(matches!(from_query::<JsonValue>(Some("limit=x"), &[]), Err(ApiError::Schema(_))));
        let order = from_query::<JsonValue>(Some("sort_order=up"), &[]).unwrap_err();
        assert!(matches!(order, ApiError::Schema(problem) if problem.place == ["query", "sort_order"]));
        let paging = |text: &str| from_query::<JsonValue>(Some(text), &[]).unwrap().1.check(&["a", "b"]).is_ok();
        assert_eq!(
            ["limit=0", "limit=-2", "offset=-1", "sort_by=c", "sort_by=a&limit=-1"].map(paging),
            [false, false, false, false, true]
        );
    }
}

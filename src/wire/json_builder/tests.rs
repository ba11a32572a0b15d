//! Any division of a text gives the value that the whole text has.

use super::*;
use crate::wire::json::{parse, parse_repaired};
use crate::wire::json_value::Packed;
use proptest::prelude::*;

/// Builds from `text`, cut at these places.
fn built(text: &[u8], cuts: &[usize]) -> Result<(Json<'static>, JsonRepairs), NotJson> {
    let mut builder = JsonBuilder::default();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts.into_iter().chain([text.len()]) {
        let mut piece = &text[from..cut];
        from = cut;
        while !piece.is_empty() && !builder.is_complete() {
            piece = &piece[builder.push(piece)..];
        }
        // What follows a whole value must be white space.
        if builder.is_complete() && !piece.trim_ascii().is_empty() {
            return Err(NotJson);
        }
    }
    builder.finish()
}

/// The value with every packed list unpacked.
fn unpacked(json: Json<'static>) -> Json<'static> {
    match json {
        Json::Packed(packed) => Json::List(packed.into_elements().into_iter().map(unpacked).collect()),
        Json::List(elements) => Json::List(elements.into_iter().map(unpacked).collect()),
        Json::Object(fields) => Json::Object(fields.into_iter().map(|(key, value)| (key, unpacked(value))).collect()),
        other => other,
    }
}

fn list(element: impl Fn(usize) -> String, length: usize) -> String {
    format!("[{}]", (0..length).map(element).collect::<Vec<_>>().join(", "))
}

#[test]
fn long_lists_are_packed() {
    let ids = list(|at| (at * 3).to_string(), 100);
    let floats = list(|at| format!("-{at}.5"), 100);
    let logprobs = list(|at| format!(r#"{{"token":"t{at}","bytes":[1],"logprob":-0.5,"top_logprobs":[{{}}]}}"#), 100);
    let text = format!(r#"{{"ids":{ids},"floats":{floats},"logprobs":{{"content":{logprobs}}}}}"#);
    let (json, _) = built(text.as_bytes(), &[]).unwrap();
    assert_eq!(json.get("ids"), &Json::Packed(Packed::Ids((0..300).step_by(3).collect())));
    assert!(matches!(json.get("floats"), Json::Packed(Packed::Floats(numbers)) if numbers[1] == -1.5));
    let content = json.at(&["logprobs", "content"]);
    let table = if let Json::Packed(Packed::Table(table)) = content { Some(table) } else { None }.unwrap();
    assert_eq!(table.column("token").unwrap().text(99), Some("t99"));
    assert_eq!((table.column("logprob").unwrap().get(7), table.column("bytes")), (Json::Float(-0.5), None));
}

#[test]
fn a_list_with_another_element_is_unpacked() {
    for other in ["1e3", "-1", "4294967296", "1.5", "null", "\"x\"", "01"] {
        let text = list(|at| if at == 60 { other.to_owned() } else { at.to_string() }, 80);
        let expected = parse(text.as_bytes()).map(Json::into_owned);
        match built(text.as_bytes(), &[]) {
            Ok((json, _)) => assert_eq!(json, expected.unwrap(), "{other}"),
            Err(NotJson) => assert!(expected.is_err(), "{other}"),
        }
    }
}

#[test]
fn memory_is_that_of_the_packed_value() {
    let logprobs =
        list(|_| r#"{"token":"abcd","logprob":-0.5,"bytes":[1,2,3,4],"top_logprobs":[]}"#.to_owned(), 10_000);
    let text = format!(r#"{{"ids":{},"logprobs":{{"content":{logprobs}}}}}"#, list(|at| at.to_string(), 100_000));
    let mut builder = JsonBuilder::default();
    builder.push(&text.as_bytes()[..text.len() - 1]);
    let bytes = builder.memory_bytes();
    assert!((600_000..640_000).contains(&bytes), "{bytes}");
    // A text that is still open is held.
    let mut builder = JsonBuilder::default();
    builder.push(b"{\"routed_experts\":\"");
    for _ in 0..1000 {
        builder.push(&[b'A'; 1000]);
    }
    builder.push(b"\",\"x\":\"");
    assert!(builder.memory_bytes() < 1000, "{}", builder.memory_bytes());
}

#[test]
fn the_value_ends_where_it_ends() {
    let mut builder = JsonBuilder::default();
    assert_eq!(builder.push(b" {\"a\":[]} {\"b\""), 9);
    assert!(builder.is_complete());
    let mut builder = JsonBuilder::default();
    assert_eq!((builder.push(b"12"), builder.is_complete()), (2, false));
    assert_eq!((builder.push(b",3"), builder.is_complete()), (0, true));
    assert!(JsonBuilder::default().is_empty() && JsonBuilder::default().finish().is_err());
    assert!(built("[".repeat(127).as_bytes(), &[]).is_err());
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    assert!(built(deep.as_bytes(), &[]).is_ok() && parse(deep.as_bytes()).is_ok());
    let deeper = format!("[{deep}]");
    assert!(built(deeper.as_bytes(), &[]).is_err() && parse(deeper.as_bytes()).is_err());
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => any::<u32>().prop_map(|id| id.to_string()),
        1 => any::<f32>().prop_map(|number| if number.is_finite() { format!("{number:?}") } else { "NaN".to_owned() }),
        1 => prop::sample::select(vec!["1e3", "-0.0", "null", "-7", "4294967296", "[1]", "01"]).prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn any_division_of_any_text_gives_its_value(
        text in "[\\[\\]{}:,\"a-c0-2.\\- \\\\uéntruefalsNI]{0,60}",
        cuts in prop::collection::vec(0_usize..100, 0..6),
    ) {
        let expected = parse_repaired(text.as_bytes());
        match built(text.as_bytes(), &cuts) {
            Ok((json, repairs)) => {
                let (expected, known) = expected.unwrap();
                prop_assert_eq!((unpacked(json), repairs), (expected, known));
            }
            Err(NotJson) => prop_assert!(expected.is_err(), "{:?}", expected),
        }
    }

    #[test]
    fn any_division_of_a_list_gives_its_value(
        numbers in prop::collection::vec(number(), 0..120),
        spaces in any::<bool>(),
        cuts in prop::collection::vec(0_usize..2000, 0..12),
    ) {
        let list = format!("[{}]", numbers.join(if spaces { ", " } else { "," }));
        let text = format!("{{\"ids\":{list},\"logprobs\":{{\"content\":[{list},{list}]}}}}");
        let expected = parse_repaired(text.as_bytes()).map(|(json, _)| json);
        match built(text.as_bytes(), &cuts) {
            Ok((json, _)) => prop_assert_eq!(unpacked(json), expected.unwrap()),
            Err(NotJson) => prop_assert!(expected.is_err()),
        }
    }

    #[test]
    fn invalid_utf8_is_replaced(bytes in prop::collection::vec(prop::sample::select(b"\"\\{}[]:,a\xff\xc3\xa9 ".to_vec()), 0..40), cuts in prop::collection::vec(0_usize..100, 0..4)) {
        if let (Ok((json, _)), Ok((expected, _))) = (built(&bytes, &cuts), parse_repaired(&bytes)) {
            prop_assert_eq!(unpacked(json), expected);
        }
    }
}

//! Tables give their rows back.

use super::*;
use crate::wire::json::parse;

fn table(rows: &[&str]) -> Result<Table, Json<'static>> {
    let mut rows = rows.iter().map(|row| parse(row.as_bytes()).unwrap().into_owned());
    let mut table = Table::of(&rows.next().unwrap()).unwrap();
    rows.try_for_each(|row| table.push(row))?;
    Ok(table)
}

fn rows(table: Table) -> String {
    serde_json::to_string(&Json::List(Packed::Table(table).into_elements())).unwrap()
}

#[test]
fn rows_come_back_as_they_were() {
    for text in [
        r#"[{"token":"é","logprob":-0.5},{"token":"","logprob":null},{"token":"b","logprob":-1.25}]"#,
        "[[-0.5,null,null],[null,null,\"x\"]]",
        r#"[{"a":"x","b":[1]},{"a":null,"b":{"c":1}}]"#,
        r#"[{"a":null},{"a":"x"}]"#,
    ] {
        let list = parse(text.as_bytes()).unwrap().into_owned();
        let texts: Vec<String> = list.list().iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        let table = table(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert_eq!(rows(table), text);
    }
}

#[test]
fn rows_that_differ_are_returned() {
    for (first, second) in [(r#"{"a":1}"#, r#"{"b":1}"#), ("[1]", "[1,2]"), (r#"{"a":1}"#, "[1]"), ("[1]", "1")] {
        assert_eq!(serde_json::to_string(&table(&[first, second]).unwrap_err()).unwrap(), second);
    }
    assert_eq!(Table::of(&Json::Int(1)), None);
    assert_eq!(Table::of(&Json::List(Vec::new())), None);
}

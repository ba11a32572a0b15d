//! The tests that the threat model in `docs/security.md` names exist.

use std::fs;

#[test]
fn every_claim_of_the_threat_model_names_tests_that_exist() {
    let page = fs::read_to_string("docs/security.md").unwrap();
    let model = page.split("## Threat model").nth(1).unwrap().split("\n## ").next().unwrap();
    let claims = model.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| claim"));
    let (mut claimed, mut missing) = (0, Vec::new());
    for claim in claims {
        let shown_by = claim.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named: {claim}");
        for name in names {
            claimed += 1;
            let (file, test) = name.split_once("::").unwrap_or_else(|| panic!("not FILE::TEST: {name}"));
            let text = fs::read_to_string(format!("tests/it/{file}.rs")).unwrap_or_default();
            if !text.contains(&format!("fn {test}()")) {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(claimed > 20, "only {claimed} tests were found");
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

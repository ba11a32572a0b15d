//! The rules of the house that no compiler checks: who may import whom, how a file opens, how long it may be.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a module of the crate may import of the others. `error` and `trace` are open to all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("util", &[]),
    ("wire", &["util"]),
    ("llm", &["wire", "util"]),
    ("net", &["wire", "util"]),
    ("tls", &["net", "util"]),
    ("upstream", &["net", "tls", "wire", "util"]),
    ("shared_state", &["llm", "util"]),
    ("capture", &["llm", "shared_state", "util"]),
    ("forward", &["upstream", "capture", "shared_state", "llm", "wire", "net", "tls", "util"]),
    ("proxy", &["net", "tls", "forward", "upstream", "wire", "util"]),
    ("gateway", &["net", "tls", "forward", "upstream", "capture", "llm", "wire", "util"]),
    ("run", &["util"]),
    ("doctor", &["net", "run", "util"]),
    ("store", &["llm", "wire", "util"]),
    ("export", &["wire", "util"]),
    ("pipeline", &["capture", "shared_state", "llm", "wire", "store", "export", "util"]),
    ("rollout", &["store", "util"]),
    ("api", &["net", "llm", "store", "export", "rollout", "gateway", "wire", "util"]),
    ("mock", &["net", "tls", "util"]),
    // Composes the settings that each part owns.
    ("config", &["api", "capture", "forward", "gateway", "proxy", "run", "store", "tls", "upstream", "util", "wire"]),
    ("cli", &["app", "config", "doctor", "export", "mock", "net", "proxy", "run", "store", "tls", "upstream", "util"]),
    ("error", &[]),
    ("trace", &[]),
];

/// May name everything: the composition root, the entry point, the map.
const GLUE: &[&str] = &["app", "main", "lib"];
const OPEN_TO_ALL: &[&str] = &["error", "trace"];
const LONGEST_FILE_LINES: usize = 400;
/// Files over the budget, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

#[test]
fn imports_follow_the_table() {
    let broken: Vec<String> =
        sources("src").iter().flat_map(|path| broken_imports(&module_of(path), &read(path))).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<_> =
        ["src", "tests"].into_iter().flat_map(sources).filter(|path| !read(path).starts_with("//! ")).collect();
    assert!(silent.is_empty(), "no //! at the top of {silent:?}");
}

#[test]
fn files_are_read_in_one_sitting() {
    let allowed: BTreeMap<_, _> = LONG_FILES.iter().copied().collect();
    let long: Vec<_> = sources("src")
        .into_iter()
        .map(|path| (path.display().to_string(), read(&path).lines().count()))
        .filter(|(path, lines)| *lines > LONGEST_FILE_LINES && !allowed.contains_key(path.as_str()))
        .collect();
    assert!(long.is_empty(), "over {LONGEST_FILE_LINES} lines: {long:?}");
}

#[test]
fn nothing_unfinished_is_left() {
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["dbg", "!("].concat(), ["todo", "!("].concat()];
    for path in sources("src") {
        let text = read(&path);
        assert!(!words.iter().any(|word| text.contains(word.as_str())), "{}", path.display());
    }
}

#[test]
fn the_checker_finds_what_it_should() {
    assert_eq!(broken_imports("proxy", "use crate::store::Store;").len(), 1);
    assert_eq!(broken_imports("proxy", "use crate::{net::glob, store};").len(), 1);
    assert_eq!(broken_imports("proxy", "fn f() { crate::api::router() }").len(), 1);
    assert!(broken_imports("proxy", "use crate::forward::reply;\n// crate::store\nuse crate::trace::Span;").is_empty());
    assert!(broken_imports("app", "use crate::store::Store;").is_empty());
    assert_eq!(broken_imports("unknown", "").len(), 1);
}

fn broken_imports(module: &str, text: &str) -> Vec<String> {
    if GLUE.contains(&module) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{module} has no row in the import table")];
    };
    let fine = |name: &str| name == module || OPEN_TO_ALL.contains(&name) || allowed.contains(&name);
    let mut broken: Vec<String> =
        imported(text).into_iter().filter(|name| !fine(name)).map(|name| format!("{module} names {name}")).collect();
    broken.dedup();
    broken
}

/// The top-level modules that `crate::…` names in code, also in groups; comments don't count.
fn imported(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut fresh) = (0, true);
            for (index, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => fresh = true,
                    letter if depth == 0 && fresh && letter.is_alphabetic() => {
                        names.push(word(&group[index..]));
                        fresh = false;
                    }
                    _ => {}
                }
            }
        } else {
            names.push(word(rest));
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

fn module_of(path: &Path) -> String {
    let below = path.strip_prefix("src").unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

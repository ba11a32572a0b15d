//! Rules about the source that no compiler checks: which module may import which, no cycles between files, a purpose
//! at the top of each file, and a maximum length.
//!
//! It reads the source as text. A path that a macro assembles is invisible to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules that a module may import, besides `error` and `trace`, which are open to all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("util", &[]),
    ("files", &[]),
    ("wire", &["util"]),
    ("llm", &["wire", "util"]),
    ("trajectory", &["llm", "wire", "util"]),
    ("net", &["wire", "util"]),
    ("tls", &["files", "net", "wire", "util"]),
    ("upstream", &["net", "tls", "wire", "util"]),
    ("shared_state", &["llm", "util"]),
    ("capture", &["llm", "shared_state", "util"]),
    ("forward", &["upstream", "capture", "shared_state", "llm", "wire", "net", "tls", "util"]),
    ("proxy", &["net", "tls", "forward", "upstream", "wire", "util"]),
    ("gateway", &["net", "tls", "forward", "upstream", "capture", "llm", "wire", "util"]),
    ("run", &["files", "util"]),
    ("doctor", &["net", "run", "util"]),
    ("store", &["files", "llm", "wire", "util"]),
    ("export", &["trajectory", "llm", "wire", "util"]),
    ("query", &["trajectory", "llm", "util"]),
    ("filter", &["llm", "query", "store", "util"]),
    ("pipeline", &["capture", "filter", "shared_state", "llm", "wire", "store", "export", "util"]),
    ("import", &["pipeline", "capture", "wire", "util"]),
    ("live_export", &["net", "tls", "upstream", "store", "export", "trajectory", "wire", "util"]),
    ("rollout", &["filter", "query", "store", "trajectory", "util"]),
    ("tracer", &["app", "config", "run", "tls", "store", "export", "wire", "util"]),
    ("api", &["net", "llm", "trajectory", "store", "export", "query", "rollout", "gateway", "wire", "util"]),
    ("mock", &["llm", "net", "tls", "util"]),
    // Composes the settings that each part owns.
    (
        "config",
        &[
            "api",
            "capture",
            "filter",
            "forward",
            "gateway",
            "live_export",
            "proxy",
            "query",
            "rollout",
            "run",
            "store",
            "tls",
            "trajectory",
            "upstream",
            "util",
            "wire",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "config",
            "doctor",
            "export",
            "files",
            "import",
            "live_export",
            "mock",
            "net",
            "proxy",
            "query",
            "rollout",
            "run",
            "store",
            "tls",
            "tracer",
            "trajectory",
            "upstream",
            "util",
            "wire",
        ],
    ),
    ("error", &[]),
    ("trace", &[]),
];

/// May import everything: the composition root, the entry point, the map.
const GLUE: &[&str] = &["app", "main", "lib"];
const OPEN_TO_ALL: &[&str] = &["error", "trace"];
const MAX_FILE_LINES: usize = 400;

/// A module's path below the crate: `["gateway", "retry"]`.
type Module = Vec<String>;

#[test]
fn imports_follow_the_table() {
    let graph = import_graph(&source_texts());
    let broken: Vec<String> = graph.iter().flat_map(|(module, imports)| broken_imports(module, imports)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_cycle() {
    let cycles = cycles(&import_graph(&source_texts()));
    let shown: Vec<String> = cycles.iter().map(|cycle| cycle.join(" ↔ ")).collect();
    assert!(cycles.is_empty(), "files that import each other in a cycle:\n{}", shown.join("\n"));
}

#[test]
fn every_file_opens_with_its_purpose() {
    let silent: Vec<_> =
        ["src", "tests"].into_iter().flat_map(sources).filter(|path| !read(path).starts_with("//! ")).collect();
    assert!(silent.is_empty(), "no //! at the top of {silent:?}");
}

#[test]
fn files_are_read_in_one_sitting() {
    let long: Vec<_> = sources("src")
        .into_iter()
        .map(|path| (path.display().to_string(), read(&path).lines().count()))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .collect();
    assert!(long.is_empty(), "over {MAX_FILE_LINES} lines: {long:?}");
}

#[test]
fn tasks_of_connections_start_in_one_place() {
    let folders = ["net", "upstream", "capture", "forward", "proxy", "gateway", "api"];
    for path in folders.into_iter().flat_map(|folder| sources(&format!("src/{folder}"))) {
        let (text, is_exempt) = (read(&path), path.ends_with("net/task.rs") || path.ends_with("tests.rs"));
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        // A panic in a task of another's is not caught, and its exchanges look like those of a client that left.
        assert!(is_exempt || !code.contains("tokio::spawn("), "use net::task::spawn in {}", path.display());
    }
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
fn the_import_check_finds_what_it_should() {
    let broken = |module: &str, text: &str| {
        let texts = [(module_of(Path::new(module)), text.to_owned()), (vec!["store".into()], String::new())];
        import_graph(&BTreeMap::from(texts)).iter().flat_map(|(from, to)| broken_imports(from, to)).count()
    };
    assert_eq!(broken("proxy/mod.rs", "use crate::store::Store;"), 1);
    assert_eq!(broken("proxy/mod.rs", "use crate::{util::glob, store};"), 1);
    assert_eq!(broken("proxy/socks.rs", "fn f() { crate::store::open() }"), 1);
    assert_eq!(broken("proxy/socks.rs", "use super::super::store::Store;"), 1);
    assert_eq!(broken("proxy/mod.rs", "// crate::store\nuse crate::trace::Span;"), 0);
    assert_eq!(broken("app/mod.rs", "use crate::store::Store;"), 0);
    assert_eq!(broken("unknown.rs", ""), 1);
}

#[test]
fn the_cycle_check_finds_what_it_should() {
    let found = |files: &[(&str, &str)]| {
        let texts = files.iter().map(|(path, text)| (module_of(Path::new(path)), (*text).to_owned())).collect();
        cycles(&import_graph(&texts))
    };
    let (child_uses_parent, child_alone) = ("use super::A;", "use crate::wire::json;");
    let parent = "mod child;\npub use child::B;\npub struct A;";
    assert_eq!(found(&[("a/mod.rs", parent), ("a/child.rs", child_uses_parent)]), [["a", "a::child"]]);
    assert!(found(&[("a/mod.rs", parent), ("a/child.rs", child_alone)]).is_empty());
    let siblings = [
        ("a/x.rs", "use super::{y::Y};"),
        ("a/y.rs", "use crate::a::z::{Z, W as V};"),
        ("a/z.rs", "fn f(_: super::x::X) {}"),
    ];
    assert_eq!(found(&siblings), [["a::x", "a::y", "a::z"]]);
    let in_tests = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use super::super::x::X;\n}";
    assert!(found(&[("a/x.rs", "use super::y::Y;"), ("a/y.rs", in_tests)]).is_empty());
}

/// What `module` imports against the table.
fn broken_imports(module: &Module, imports: &BTreeSet<Module>) -> Vec<String> {
    let own = &module[0];
    if GLUE.contains(&own.as_str()) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| name == own) else {
        return vec![format!("{own} has no row in the import table")];
    };
    let is_allowed = |name: &str| name == own || OPEN_TO_ALL.contains(&name) || allowed.contains(&name);
    let tops: BTreeSet<&String> = imports.iter().map(|import| &import[0]).collect();
    let broken = tops.into_iter().filter(|name| !is_allowed(name));
    broken.map(|name| format!("{} imports {name}", module.join("::"))).collect()
}

/// Each file with the files that it imports; a path leads to the file of its longest known prefix. Re-exports count,
/// `mod x;` does not.
fn import_graph(texts: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut graph = BTreeMap::new();
    for (module, text) in texts {
        let mut imports = BTreeSet::new();
        for path in paths(text) {
            let Some(mut target) = absolute(module, &path, texts) else { continue };
            while !target.is_empty() && !texts.contains_key(&target) {
                target.pop();
            }
            if !target.is_empty() && target != *module {
                imports.insert(target);
            }
        }
        graph.insert(module.clone(), imports);
    }
    graph
}

/// A path as it counts from the crate's root; `None` when it leads out of the crate.
fn absolute(module: &Module, path: &[String], texts: &BTreeMap<Module, String>) -> Option<Module> {
    let first = path.first()?.as_str();
    match first {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let base = module.len().checked_sub(ups)?;
            Some([&module[..base], &path[ups..]].concat())
        }
        child => {
            let below = [module.as_slice(), &[child.to_owned()]].concat();
            texts.contains_key(&below).then(|| [module, path].concat())
        }
    }
}

/// The paths that the code of a file names: in `use`, each leaf; elsewhere those from `crate`, `super` and `self`.
/// Comments and the tests at the end don't count.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].trim_end();
        if before.is_empty() || before.ends_with([';', '}', '{', ']', ')']) || before.ends_with("pub") {
            let tree = code[at + 4..].split(';').next().unwrap_or_default();
            leaves(&[], tree, &mut found);
        }
    }
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let is_word_start =
                !code[..at].ends_with(|letter: char| letter.is_alphanumeric() || ":_$".contains(letter));
            if is_word_start {
                let end = code[at..].find(|letter: char| !(letter.is_alphanumeric() || ":_".contains(letter)));
                let path = &code[at..end.map_or(code.len(), |end| at + end)];
                // `super::{` opens a group of a `use`, whose leaves are found above.
                if !path.ends_with("::") {
                    found.push(parts(path));
                }
            }
        }
    }
    found
}

/// The leaves of a `use` tree.
fn leaves(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        found.push([prefix, &parts(path)].concat());
        return;
    };
    let prefix = [prefix, &parts(head)].concat();
    let (mut depth, mut start) = (0, 0);
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                leaves(&prefix, &group[start..at], found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !group[start..].trim().is_empty() {
        leaves(&prefix, &group[start..], found);
    }
}

fn parts(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Groups of files each of which reaches the others by imports.
fn cycles(graph: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<String>> {
    let reached = |from: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = open.pop() {
            for next in graph.get(&module).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&Module, BTreeSet<Module>> = graph.keys().map(|module| (module, reached(module))).collect();
    let mut cycles = BTreeSet::new();
    for (module, seen) in &reach {
        if seen.contains(*module) {
            let knot = seen.iter().filter(|other| reach.get(other).is_some_and(|back| back.contains(*module)));
            cycles.insert(knot.map(|module| module.join("::")).collect::<Vec<_>>());
        }
    }
    cycles.into_iter().collect()
}

/// `src/gateway/retry.rs` is `gateway::retry`; a `mod.rs` is its folder.
fn module_of(path: &Path) -> Module {
    let below = path.strip_prefix("src").unwrap_or(path).with_extension("");
    let mut parts: Module = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

fn source_texts() -> BTreeMap<Module, String> {
    let texts: BTreeMap<_, _> = sources("src").into_iter().map(|path| (module_of(&path), read(&path))).collect();
    // The map of the crate and the entry point import what they please.
    texts.into_iter().filter(|(module, _)| module[0] != "lib" && module[0] != "main").collect()
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

//! The names of settings in messages are those of `proxy.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The settings of `proxy.toml`, including the ones that are commented out, and their sections.
fn settings() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut section = String::new();
    for line in fs::read_to_string("proxy.toml").unwrap().lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_start_matches('[').split(']').next().unwrap().to_owned();
            names.insert(section.clone());
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(is_name)
        {
            names.insert(format!("{section}.{key}"));
        }
    }
    names
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
}

/// The dotted names in string literals that begin with a section, such as `store.path`.
fn named(code: &str, sections: &BTreeSet<&str>) -> Vec<String> {
    let mut all = Vec::new();
    // Every second part is a literal, unless a literal contains an escaped quotation mark: that only hides names.
    for literal in code.split('"').skip(1).step_by(2) {
        // Columns of tables look like settings too.
        if ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE "].iter().any(|word| literal.contains(word)) {
            continue;
        }
        let is_part = |letter: char| is_name(letter) || letter == '.';
        for word in literal.split(|letter: char| !is_part(letter) && letter != '/' && letter != ':' && letter != '-') {
            let word = word.trim_end_matches(['.', ':', '-']);
            let (first, rest) = word.split_once('.').unwrap_or((word, ""));
            if word.chars().all(is_part) && sections.contains(first) && !rest.is_empty() {
                all.push(word.to_owned());
            }
        }
    }
    all
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn messages_name_settings_that_exist() {
    let settings = settings();
    assert!(settings.contains("store.retention.max_bytes") && settings.contains("server.otlp_grpc_listen"));
    let sections: BTreeSet<&str> = settings.iter().filter_map(|name| name.split('.').next()).collect();
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let (mut seen, mut unknown) = (0, Vec::new());
    for path in files {
        // Attributes of OpenTelemetry look like settings.
        if path.ends_with("trace/semconv.rs") || path.ends_with("span_record/words.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        // A quote that is a character begins no text.
        for name in named(&lines.join("\n").replace("'\"'", "''"), &sections) {
            let file_names = ["proxy.toml", "gateway.md"];
            if !settings.contains(&name) && !file_names.iter().any(|file| name.ends_with(file)) {
                unknown.push(format!("{}: {name}", path.display()));
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} names were found");
    assert!(unknown.is_empty(), "no such settings:\n{}", unknown.join("\n"));
}

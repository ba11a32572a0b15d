//! The prefixes that providers give their credentials, read from `prefixes.tsv`.

use std::sync::LazyLock;

/// A prefix, and the least length of a whole credential that begins with it. Credentials are ASCII.
pub(super) type Prefix = (&'static str, usize);

static PREFIXES: LazyLock<Vec<Prefix>> = LazyLock::new(|| {
    let rows = include_str!("prefixes.tsv").lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|row| row.split_once('\t').and_then(|(prefix, least)| Some((prefix, least.parse().ok()?))))
        .collect()
});

static BY_FIRST_BYTE: LazyLock<[Vec<Prefix>; 256]> = LazyLock::new(|| {
    let mut by_byte = [const { Vec::new() }; 256];
    for (prefix, least) in PREFIXES.iter() {
        by_byte[usize::from(prefix.as_bytes()[0])].push((*prefix, *least));
    }
    by_byte
});

/// All prefixes, in the order of the file.
pub(super) fn all() -> &'static [Prefix] {
    &PREFIXES
}

/// The prefix that `rest`, which starts a word of `word` bytes, has, if the word is long enough for a credential.
pub(super) fn of(rest: &str, word: usize) -> Option<&'static str> {
    let first = *rest.as_bytes().first()?;
    let found = BY_FIRST_BYTE[usize::from(first)].iter();
    found
        .filter(|(prefix, least)| word >= *least && rest.starts_with(prefix))
        .map(|(prefix, _)| *prefix)
        .max_by_key(|prefix| prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read() {
        let rows = include_str!("prefixes.tsv").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(all().len(), rows);
        assert!(all().iter().all(|(prefix, least)| prefix.is_ascii() && *least > prefix.len()));
    }
}

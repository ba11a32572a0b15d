//! Texts that are cut to what a line shows.

/// The first `max_characters` of a text, with `…` behind them if there are more.
pub(crate) fn cut(text: &str, max_characters: usize) -> String {
    match text.char_indices().nth(max_characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_longer_texts_are_cut() {
        assert_eq!([cut("añb", 3), cut("añb", 2), cut("", 0)], ["añb", "añ…", ""]);
    }
}

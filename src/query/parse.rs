//! Reads a query: terms between spaces, all of which have to hold.
//!
//! A term is a word, or a field with a value: `field:value`, and for numbers also `field>value`. A value with spaces stands in
//! double quotes, and a term after `-` must not hold.

use super::error::QueryError;
use super::facts::RolloutFacts;
use super::term::{Comparison, Condition, NUMBER_FIELDS, TEXT_FIELDS, Term, TextField, VerdictValue};
use crate::trace::{MAX_PHRASE_WORDS, RolloutStatus, Timestamp, Word, words_of};
use std::ops::Range;

/// Conditions on rollouts. The empty query matches all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Query {
    pub(super) terms: Vec<Term>,
}

impl Query {
    /// Reads a query. `now` is what `since:1h` counts from.
    pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Self, QueryError> {
        if text.len() > MAX_QUERY_BYTES {
            return Err(QueryError::new(0..text.len(), format!("a query has at most {MAX_QUERY_BYTES} bytes")));
        }
        let terms = words(text)?.into_iter().map(|word| term(text, word, now));
        Ok(Self { terms: terms.collect::<Result<_, _>>()? })
    }

    /// True if every rollout matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// True if the answer depends on what the spans add up to.
    pub(crate) fn needs_totals(&self) -> bool {
        self.terms.iter().any(|term| term.condition.needs_totals())
    }

    /// True if the answer depends on the mode of the rollout.
    pub(crate) fn needs_mode(&self) -> bool {
        self.terms.iter().any(|term| matches!(term.condition, Condition::Text(TextField::Mode, _)))
    }

    /// True if the answer depends on the verdict.
    pub(crate) fn needs_verdict(&self) -> bool {
        self.terms.iter().any(Term::is_of_verdict)
    }

    /// The phrases that have to be searched for in messages.
    pub(crate) fn phrases(&self) -> impl Iterator<Item = &Vec<Word>> {
        self.terms.iter().filter_map(|term| match &term.condition {
            Condition::Phrase(words) => Some(words),
            _ => None,
        })
    }

    /// True if the rollout meets all conditions.
    pub(crate) fn matches(&self, facts: &RolloutFacts<'_>) -> bool {
        self.terms.iter().all(|term| term.matches(facts))
    }

    /// True if the rollout meets all conditions that are not about the verdict, which takes longest to find.
    pub(crate) fn matches_apart_from_verdict(&self, facts: &RolloutFacts<'_>) -> bool {
        self.terms.iter().all(|term| term.is_of_verdict() || term.matches(facts))
    }

    /// The states that a matching rollout may have; `None` for all.
    pub(crate) fn statuses(&self) -> Option<Vec<RolloutStatus>> {
        let lists = self.terms.iter().filter_map(|term| match &term.condition {
            Condition::Status(statuses) if !term.is_negated => Some(statuses.clone()),
            _ => None,
        });
        lists.reduce(|one, other| one.into_iter().filter(|status| other.contains(status)).collect())
    }

    /// The time before which no matching rollout started; `None` without such a time.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        let times = self.terms.iter().filter_map(|term| match term.condition {
            Condition::Since(time) if !term.is_negated => Some(time),
            _ => None,
        });
        times.max()
    }
}

/// The places of the terms.
fn words(text: &str) -> Result<Vec<Range<usize>>, QueryError> {
    let (mut words, mut start, mut quote) = (Vec::new(), None, None);
    for (at, character) in text.char_indices() {
        match character {
            '"' if quote.is_some() => quote = None,
            '"' => {
                quote = Some(at);
                start.get_or_insert(at);
            }
            _ if character.is_whitespace() && quote.is_none() => words.extend(start.take().map(|start| start..at)),
            _ => drop(start.get_or_insert(at)),
        }
    }
    if let Some(at) = quote {
        return Err(QueryError::new(at..text.len(), "the quote is not closed"));
    }
    words.extend(start.map(|start| start..text.len()));
    if words.len() > MAX_TERMS {
        return Err(QueryError::new(0..text.len(), format!("a query has at most {MAX_TERMS} terms")));
    }
    Ok(words)
}

fn term(text: &str, place: Range<usize>, now: Timestamp) -> Result<Term, QueryError> {
    let whole = &text[place.clone()];
    let is_negated = whole.len() > 1 && whole.starts_with('-');
    let place = place.start + usize::from(is_negated)..place.end;
    let whole = &text[place.clone()];
    let split = whole.find([':', '<', '>', '=']).filter(|at| *at > 0 && !whole.starts_with('"'));
    let Some(at) = split else {
        return Ok(Term { condition: Condition::Word(unquoted(whole)), is_negated });
    };
    let (name, rest) = whole.split_at(at);
    let operators = [
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Less),
        (">", Comparison::More),
        (":", Comparison::Equal),
        ("=", Comparison::Equal),
    ];
    let found = operators.iter().find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?)));
    let (comparison, value) = found.unwrap_or((Comparison::Equal, rest));
    let value_place = place.end - value.len()..place.end;
    if value.is_empty() {
        return Err(QueryError::new(place, format!("`{name}` has no value")));
    }
    let value = unquoted(value);
    let condition = condition(name, comparison, &value, now).map_err(|problem| match problem {
        Problem::Field(message) => QueryError::new(place.start..place.start + name.len(), message),
        Problem::Value(message) => QueryError::new(value_place, message),
    })?;
    Ok(Term { condition, is_negated })
}

/// Whether the name of a field or its value is wrong.
enum Problem {
    Field(String),
    Value(String),
}

fn condition(name: &str, comparison: Comparison, value: &str, now: Timestamp) -> Result<Condition, Problem> {
    let lower = name.to_ascii_lowercase();
    if let Some((_, field)) = NUMBER_FIELDS.iter().find(|(known, _)| *known == lower) {
        let number =
            number(value).ok_or_else(|| Problem::Value(format!("{value} is no number; write 4k, 1.5 or 30s")))?;
        return Ok(Condition::Number(*field, comparison, number));
    }
    let text_field = TEXT_FIELDS.iter().find(|(known, _)| *known == lower);
    if text_field.is_none() && !OTHER_FIELDS.contains(&lower.as_str()) {
        let nearest = nearest(&lower).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
        return Err(Problem::Field(format!("there is no field `{name}`{nearest}")));
    }
    if comparison != Comparison::Equal {
        return Err(Problem::Field(format!("`{name}` has no order; write {name}:VALUE")));
    }
    match (lower.as_str(), text_field) {
        (_, Some((_, field))) => Ok(Condition::Text(*field, value.to_owned())),
        ("status", _) => statuses(value).map(Condition::Status),
        ("text", _) => phrase(value).map(Condition::Phrase),
        ("verdict", _) => Ok(Condition::Verdict(match value.to_ascii_lowercase().as_str() {
            "sound" => VerdictValue::Sound,
            "unsound" => VerdictValue::Unsound,
            reason => VerdictValue::Reason(reason.to_owned()),
        })),
        (field, _) => {
            let message = || format!("{value} is no time; write 1h, 2d, or 2026-01-31");
            let time = time(value, now).ok_or_else(|| Problem::Value(message()))?;
            Ok(if field == "since" { Condition::Since(time) } else { Condition::Until(time) })
        }
    }
}

/// The words of a phrase, which are compared whole.
fn phrase(value: &str) -> Result<Vec<Word>, Problem> {
    if value.starts_with('*') || value.ends_with('*') {
        return Err(Problem::Value("texts are searched for whole words; leave out the `*`".to_owned()));
    }
    let words = words_of(value);
    match words.len() {
        0 => Err(Problem::Value(format!("{value} has no letter or digit to search for"))),
        1..=MAX_PHRASE_WORDS => Ok(words),
        _ => Err(Problem::Value(format!("a phrase has at most {MAX_PHRASE_WORDS} words"))),
    }
}

/// One or more states between commas. `error` stands for failed, and `active` for all that have not ended.
fn statuses(value: &str) -> Result<Vec<RolloutStatus>, Problem> {
    let mut found = Vec::new();
    for name in value.split(',') {
        let before = found.len();
        found.extend(RolloutStatus::ALL.into_iter().filter(|status| match name.to_ascii_lowercase().as_str() {
            "error" => *status == RolloutStatus::Failed,
            "active" => !status.is_final(),
            name => status.as_str() == name,
        }));
        if found.len() == before {
            let known = RolloutStatus::ALL.map(RolloutStatus::as_str).join(", ");
            return Err(Problem::Value(format!("there is no status {name}; there are {known}, error and active")));
        }
    }
    Ok(found)
}

/// A number, with `k`, `M` or a unit of time.
fn number(value: &str) -> Option<f64> {
    let units =
        [("ms", 1e-3), ("k", 1e3), ("K", 1e3), ("M", 1e6), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
    let with_unit =
        units.iter().find_map(|(unit, factor)| Some(value.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    with_unit.or_else(|| value.parse().ok()).filter(|number: &f64| number.is_finite())
}

/// A time: how long ago, or a date in UTC.
fn time(value: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(days) = date_days(value) {
        return Some(Timestamp::from_unix_secs(days * 86_400.0));
    }
    let ago = number(value).filter(|_| value.ends_with(['s', 'm', 'h', 'd']))?;
    Some(Timestamp::from_unix_secs(now.unix_secs() - ago))
}

/// The days from 1970-01-01 to a date `YYYY-MM-DD` of the Gregorian calendar.
fn date_days(value: &str) -> Option<f64> {
    let mut parts = value.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    let (year, month, day) = (year.parse::<i64>().ok()?, month.parse::<i64>().ok()?, day.parse::<i64>().ok()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 1;
    Some((days - DAYS_TO_1970) as f64)
}

/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

fn unquoted(value: &str) -> String {
    value.replace('"', "")
}

/// The field with the most similar name.
fn nearest(name: &str) -> Option<&'static str> {
    let texts = TEXT_FIELDS.iter().map(|(known, _)| *known);
    let known = texts.chain(NUMBER_FIELDS.iter().map(|(known, _)| *known)).chain(OTHER_FIELDS);
    let scored = known.map(|known| (strsim::jaro(name, known), known));
    scored.filter(|(score, _)| *score > 0.7).max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, known)| known)
}

const MAX_QUERY_BYTES: usize = 2048;
const MAX_TERMS: usize = 64;
/// Fields that are neither texts nor numbers of a rollout.
const OTHER_FIELDS: [&str; 5] = ["status", "since", "until", "text", "verdict"];

#[cfg(test)]
mod tests {
    use super::super::totals::RolloutTotals;
    use super::*;
    use crate::trace::Rollout;
    use std::collections::{HashMap, HashSet};

    fn now() -> Timestamp {
        Timestamp::from_unix_secs(1_800_000_000.0)
    }

    fn matches(query: &str) -> bool {
        let mut rollout = Rollout::running("ro-12".into(), Timestamp::from_unix_secs(1_799_999_000.0));
        rollout.input = serde_json::json!({"question": "Where is my Refund?"});
        let totals = RolloutTotals {
            input_tokens: 4000,
            output_tokens: 500,
            models: vec!["Qwen3-8B".to_owned()],
            rewards: vec![("primary".to_owned(), 0.5)],
            ..RolloutTotals::default()
        };
        let facts = RolloutFacts {
            rollout: &rollout,
            attempts: 1,
            spans: 9,
            errors: 2,
            llm_calls: 3,
            totals: &totals,
            verdict: Some(&["missing_token_ids"]),
            cost: Some(0.25),
            phrases: &HashMap::from([(words_of("my refund"), HashSet::from(["ro-12".into()]))]),
            now: now(),
        };
        Query::parse(query, now()).unwrap().matches(&facts)
    }

    #[test]
    fn terms_mean_what_they_say() {
        for query in [
            "",
            "  ",
            "refund",
            "\"my refund\"",
            "task:\"my refund\"",
            "model:qwen*",
            "model:qwen",
            "tokens>4k",
            "tokens>=4.5k",
            "tokens:4500",
            "reward<0.6",
            "reward:0.5",
            "cost>=0.25",
            "status:running",
            "status:failed,running",
            "status:active",
            "since:1h",
            "duration>=1000s",
            "duration<20m",
            "-status:failed",
            "-model:gpt*",
            "id:ro-1*",
            "errors>1 calls:3",
            "since:2027-01-01",
            "until:2028-02-29",
            "qwen refund ro-12",
            "text:\"My refund!\"",
            "text:my-refund",
            "-text:refund",
            "verdict:unsound -verdict:sound",
            "verdict:missing*",
        ] {
            assert!(matches(query), "{query}");
        }
        for query in [
            "banana",
            "model:gpt*",
            "model:wen*",
            "tokens>5k",
            "reward>0.5",
            "status:error",
            "since:10m",
            "-refund",
            "tool:x",
            "refund banana",
            "until:1h",
            "text:refund",
            "verdict:sound",
            "verdict:timeout",
        ] {
            assert!(!matches(query), "{query}");
        }
    }

    #[test]
    fn errors_point_at_the_place() {
        for (query, place, message) in [
            ("a modle:x", 2..7, "there is no field `modle`; did you mean `model`?"),
            ("tokens>many", 7..11, "many is no number"),
            ("status:done", 7..11, "there is no status done"),
            ("x since:tomorrow", 8..16, "tomorrow is no time"),
            ("task:\"a b", 5..9, "the quote is not closed"),
            ("model>3", 0..5, "`model` has no order"),
            ("a -model:", 3..9, "`model` has no value"),
            ("text:refund*", 5..12, "texts are searched for whole words"),
            ("text:\"?! \"", 5..10, "?!  has no letter or digit"),
            ("a text>x", 2..6, "`text` has no order"),
            ("texts:x", 0..5, "there is no field `texts`; did you mean `text`?"),
        ] {
            let error = Query::parse(query, now()).unwrap_err();
            assert_eq!(error.place, place, "{query}");
            assert!(error.message.starts_with(message), "{error}");
        }
    }

    #[test]
    fn all_fields_go_together() {
        let text = "model:qwen* status:error tokens>4k role:subagent verdict:sound reward<0.5 tool:search host:github.com \
            text:\"refund\" since:1h";
        let query = Query::parse(text, now()).unwrap();
        assert_eq!(query.phrases().collect::<Vec<_>>(), [&words_of("refund")]);
        assert!(query.needs_verdict() && query.needs_totals() && query.statuses().is_some());
    }

    #[test]
    fn what_the_store_can_select_is_known() {
        let query = Query::parse("status:failed,running status:active since:1h since:2h x", now()).unwrap();
        assert_eq!(query.statuses(), Some(vec![RolloutStatus::Running]));
        assert_eq!(query.earliest(), Some(Timestamp::from_unix_secs(1_799_996_400.0)));
        assert_eq!(date_days("2027-01-15"), Some(20_833.0));
        assert!(!Query::parse("status:running id:x since:1h", now()).unwrap().needs_totals());
        assert!(Query::parse("tokens>1", now()).unwrap().needs_totals());
    }
}

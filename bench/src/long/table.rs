//! What long calls cost: medians over rounds, as a table and as JSON.

use super::processes::{Candidate, floor};
use serde::Serialize;
use std::fmt::Write as _;

/// One measurement. `None`: it does not apply, or was not measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub calls: f64,
    /// Calls that failed, and responses that were wrong.
    pub errors: f64,
    /// Calls with the status `exact`, in percent.
    pub exact: Option<f64>,
    /// Calls with the endpoint's ids, in percent.
    pub ids_equal: Option<f64>,
    /// Calls with the endpoint's log-probabilities, in percent.
    pub logprobs_equal: Option<f64>,
    /// Memory before the calls.
    pub rest_mb: f64,
    /// Memory at its most, above that.
    pub above_rest_mb: f64,
    /// User and system time of a call.
    pub cpu_ms: f64,
    /// The same, of the endpoint.
    pub endpoint_cpu_ms: f64,
    /// By how much the data folder grew, by the ids that differ.
    pub bytes_per_id: Option<f64>,
    /// What the metrics say was written to disk in place of memory.
    pub spilled_mb: Option<f64>,
    pub wall_s: f64,
    /// Of small calls without long ones.
    pub alone_p50_ms: Option<f64>,
    pub alone_p99_ms: Option<f64>,
    /// Of small calls beside long ones.
    pub beside_p50_ms: Option<f64>,
    pub beside_p99_ms: Option<f64>,
}

/// The measurements of one candidate in one scenario.
#[derive(Debug, Serialize)]
pub struct Row {
    pub scenario: &'static str,
    pub label: String,
    /// The label of what its CPU is compared with.
    pub floor: &'static str,
    /// One for each round.
    pub rounds: Vec<Figures>,
}

/// Adds a measurement to the row that it belongs to.
pub fn add(rows: &mut Vec<Row>, scenario: &'static str, candidate: &Candidate, figures: Figures) {
    let row = rows.iter_mut().find(|row| row.scenario == scenario && row.label == candidate.label);
    match row {
        Some(row) => row.rounds.push(figures),
        None => {
            let (label, floor) = (candidate.label.clone(), floor(candidate.mode));
            rows.push(Row { scenario, label, floor, rounds: vec![figures] });
        }
    }
}

impl Row {
    /// The median of a value, over the rounds that have it.
    fn median(&self, value: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.rounds.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn cells(&self, rows: &[Self]) -> [String; 13] {
        let base = rows.iter().find(|row| row.scenario == self.scenario && row.label == self.floor);
        let base = base.and_then(|row| row.median(|one| Some(one.cpu_ms))).filter(|cpu| *cpu > 0.0);
        let ratio = |one: &Figures| Some(one.cpu_ms / base?);
        let cell = |value: &dyn Fn(&Figures) -> Option<f64>, decimals: usize| {
            self.median(value).map(|value| format!("{value:.decimals$}")).unwrap_or_default()
        };
        let pair = |one: String, other: String| if one.is_empty() { one } else { format!("{one} / {other}") };
        let exact = pair(cell(&|one| one.exact, 1), cell(&|one| one.ids_equal, 1));
        [
            self.label.clone(),
            cell(&|one| Some(one.calls), 0),
            cell(&|one| Some(one.errors), 0),
            pair(exact, cell(&|one| one.logprobs_equal, 1)),
            cell(&|one| Some(one.rest_mb), 0),
            cell(&|one| Some(one.above_rest_mb), 0),
            cell(&|one| Some(one.cpu_ms), 1),
            cell(&ratio, 2),
            cell(&|one| Some(one.endpoint_cpu_ms), 1),
            cell(&|one| one.bytes_per_id, 2),
            cell(&|one| one.spilled_mb, 0),
            cell(&|one| Some(one.wall_s), 1),
            [
                pair(cell(&|one| one.alone_p50_ms, 2), cell(&|one| one.alone_p99_ms, 2)),
                pair(cell(&|one| one.beside_p50_ms, 2), cell(&|one| one.beside_p99_ms, 2)),
            ]
            .join(" → ")
            .trim_matches([' ', '→'])
            .to_owned(),
        ]
    }
}

/// Markdown, a table for each scenario.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut scenario = "";
    for row in rows {
        if row.scenario != scenario {
            scenario = row.scenario;
            let _ = writeln!(text, "\n### {scenario}\n\n| {} |", HEADINGS.join(" | "));
            let _ = writeln!(text, "|---|{}", "--:|".repeat(HEADINGS.len() - 1));
        }
        let _ = writeln!(text, "| {} |", row.cells(rows).join(" | "));
    }
    text
}

const HEADINGS: [&str; 13] = [
    "",
    "calls",
    "errors",
    "exact / ids / logprobs equal %",
    "rest MB",
    "above rest MB",
    "CPU ms each",
    "× floor",
    "endpoint's CPU ms each",
    "disk bytes per id",
    "spilled MB",
    "wall s",
    "small calls alone → beside, p50 / p99 ms",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::long::processes::candidates;

    #[test]
    fn rows_have_medians_and_are_compared_with_their_floor() {
        let mut rows = Vec::new();
        let all = candidates(&["a".into()]);
        for (round, cpu_ms) in [4.0, 2.0, 3.0].into_iter().enumerate() {
            add(&mut rows, "long-json", &all[0], Figures { cpu_ms, ..Figures::default() });
            let exact = (round > 0).then_some(50.0);
            let figures = Figures { cpu_ms: 4.0 * cpu_ms, exact, ids_equal: exact, ..Figures::default() };
            add(&mut rows, "long-json", &all[1], figures);
        }
        let [floor, ours] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(&floor.cells(&rows)[6..8], ["3.0", "1.00"]);
        assert_eq!(&ours.cells(&rows)[6..8], ["12.0", "4.00"]);
        assert_eq!(ours.cells(&rows)[3], "50.0 / 50.0 / ");
        assert!(table(&rows).contains("### long-json") && table(&rows).lines().count() == 7);
    }
}

//! Results: medians over rounds, as a table and as JSON.

use crate::drive::Load;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cell {
    pub exchanges_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Of a chunk, from its making to its arrival.
    pub chunk_p50_us: f64,
    pub chunk_p99_us: f64,
    /// User and system time of the proxy's process, per exchange.
    pub cpu_us: f64,
    pub mb_per_s: f64,
    pub before_mb: f64,
    pub peak_mb: f64,
    pub after_mb: f64,
    pub kb_each: f64,
    pub errors: f64,
    /// Exchanges in the store, of those that were made; 0 if nothing records.
    pub recorded_pct: f64,
}

impl Cell {
    pub fn of(load: &Load) -> Self {
        let seconds = load.elapsed.as_secs_f64().max(1e-9);
        let (mut latencies, mut delays) = (load.latencies_us.clone(), load.delays_us.clone());
        latencies.sort_unstable();
        delays.sort_unstable();
        Self {
            exchanges_per_s: latencies.len() as f64 / seconds,
            p50_us: quantile(&latencies, 0.5),
            p99_us: quantile(&latencies, 0.99),
            p999_us: quantile(&latencies, 0.999),
            chunk_p50_us: quantile(&delays, 0.5),
            chunk_p99_us: quantile(&delays, 0.99),
            mb_per_s: load.bytes as f64 / 1e6 / seconds,
            errors: load.errors as f64,
            ..Self::default()
        }
    }

    fn of_values(values: [f64; 14]) -> Self {
        let [exchanges_per_s, p50_us, p99_us, p999_us, chunk_p50_us, chunk_p99_us, cpu_us, mb_per_s, ..] = values;
        let [.., before_mb, peak_mb, after_mb, kb_each, errors, recorded_pct] = values;
        Self {
            exchanges_per_s,
            p50_us,
            p99_us,
            p999_us,
            chunk_p50_us,
            chunk_p99_us,
            cpu_us,
            mb_per_s,
            before_mb,
            peak_mb,
            after_mb,
            kb_each,
            errors,
            recorded_pct,
        }
    }

    fn values(&self) -> [f64; 14] {
        [
            self.exchanges_per_s,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            self.chunk_p50_us,
            self.chunk_p99_us,
            self.cpu_us,
            self.mb_per_s,
            self.before_mb,
            self.peak_mb,
            self.after_mb,
            self.kb_each,
            self.errors,
            self.recorded_pct,
        ]
    }
}

fn quantile(sorted: &[u64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0) as f64
}

/// By scenario, then by proxy, in the order in which they came.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    order: Vec<(String, String)>,
    cells: BTreeMap<String, Vec<Cell>>,
}

impl Results {
    pub fn add(&mut self, scenario: &str, proxy: &str, cell: Cell) {
        let key = (scenario.to_owned(), proxy.to_owned());
        if !self.order.contains(&key) {
            self.order.push(key);
        }
        self.cells.entry(format!("{scenario}/{proxy}")).or_default().push(cell);
    }

    /// The median of every value of its own.
    pub fn median(&self, scenario: &str, proxy: &str) -> Option<Cell> {
        let cells = self.cells.get(&format!("{scenario}/{proxy}"))?;
        let mut out = [0.0; 14];
        for (at, slot) in out.iter_mut().enumerate() {
            let mut values: Vec<f64> = cells.iter().map(|cell| cell.values()[at]).collect();
            values.sort_by(f64::total_cmp);
            *slot = values[values.len() / 2];
        }
        Some(Cell::of_values(out))
    }
}

/// Markdown, a table a scenario. CPU is compared with that of `base`.
pub fn table(results: &Results, base: &str) -> String {
    let mut text = String::new();
    let mut scenarios: Vec<&str> = Vec::new();
    for (scenario, _) in &results.order {
        if !scenarios.contains(&scenario.as_str()) {
            scenarios.push(scenario);
        }
    }
    for scenario in scenarios {
        let _ = writeln!(text, "\n### {scenario}\n");
        let _ = writeln!(
            text,
            "| | exchanges/s | p50 ms | p99 ms | p99.9 ms | chunk p50 / p99 ms | CPU µs each | × {base} | MB/s | memory MB \
             before / peak / after | kB each | errors | recorded % |"
        );
        text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
        let base = results.median(scenario, base).map(|cell| cell.cpu_us).filter(|cpu| *cpu > 0.0);
        for (_, proxy) in results.order.iter().filter(|(of, _)| of == scenario) {
            let Some(cell) = results.median(scenario, proxy) else { continue };
            let cpu = cell.cpu_us;
            let ratio = base.filter(|_| cpu > 0.0).map(|base| format!("{:.2}", cpu / base)).unwrap_or_default();
            let ms = |us: f64| format!("{:.2}", us / 1000.0);
            let some = |value: f64, text: String| if value > 0.0 { text } else { String::new() };
            let _ = writeln!(
                text,
                "| {proxy} | {} | {} | {} | {} | {} | {} | {ratio} | {} | {} | {} | {} | {} |",
                some(cell.exchanges_per_s, format!("{:.0}", cell.exchanges_per_s)),
                some(cell.p50_us, ms(cell.p50_us)),
                some(cell.p99_us, ms(cell.p99_us)),
                some(cell.p999_us, ms(cell.p999_us)),
                some(cell.chunk_p99_us, format!("{} / {}", ms(cell.chunk_p50_us), ms(cell.chunk_p99_us))),
                some(cpu, format!("{cpu:.0}")),
                some(cell.mb_per_s, format!("{:.0}", cell.mb_per_s)),
                some(cell.peak_mb, format!("{:.0} / {:.0} / {:.0}", cell.before_mb, cell.peak_mb, cell.after_mb)),
                some(cell.kb_each, format!("{:.1}", cell.kb_each)),
                cell.errors,
                some(cell.recorded_pct, format!("{:.1}", cell.recorded_pct)),
            );
        }
    }
    text
}

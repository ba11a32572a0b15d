//! `tracewire store stats`: rollouts by status, attempts, spans, and what they take on disk. Only counts that are kept, or that an
//! index has, are read.

use super::report::{bytes, thousands};
use crate::cli::show;
use crate::cli::trace_list::age;
use crate::export::text::escape_for_terminal;
use crate::store::{Result, RolloutFilter, SharedStore, Statistics, StoreKind, StoreUsage};
use crate::trace::{RolloutStatus, Timestamp};
use serde_json::{Map, Value as JsonValue, json};
use std::time::SystemTime;

/// What is known of a store as a whole.
pub(super) struct Stats {
    /// The store's name, without a password.
    place: String,
    counts: Statistics,
    /// In the order of [`RolloutStatus::ALL`], without those that no rollout has.
    by_status: Vec<(RolloutStatus, u64)>,
    usage: StoreUsage,
    now: Timestamp,
}

impl Stats {
    /// Reads the counts of a store.
    pub(super) async fn read(store: &SharedStore, place: String) -> Result<Self> {
        // The spool empties while it is open.
        let usage = store.usage().await?;
        let mut by_status = Vec::new();
        for status in RolloutStatus::ALL {
            let rollouts = store.count_rollouts(RolloutFilter::of_statuses(vec![status])).await?;
            by_status.extend((rollouts > 0).then_some((status, rollouts)));
        }
        Ok(Self { place, counts: store.statistics().await?, by_status, usage, now: SystemTime::now().into() })
    }

    /// One object. What the store can't know is null.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        let Self { counts, usage, .. } = self;
        let by_status = self.by_status.iter().map(|(status, rollouts)| (status.as_str().to_owned(), json!(rollouts)));
        let by_status: Map<String, JsonValue> = by_status.collect();
        let json = json!({
            "store": self.place,
            "kind": usage.kind,
            "schema_version": usage.schema_version,
            "rollouts": counts.rollouts,
            "rollouts_by_status": by_status,
            "attempts": counts.attempts,
            "spans": counts.spans,
            "waiting_spans": counts.waiting,
            "workers": counts.workers,
            "resources": counts.resources,
            "oldest_span": usage.oldest_span,
            "newest_span": usage.newest_span,
            "pieces": usage.pieces,
            "bytes": {
                "total": usage.total_bytes(),
                "database": usage.database_bytes,
                "unused": usage.unused_bytes,
                "log": usage.log_bytes,
                "pieces": usage.piece_bytes,
                "spool": usage.spool_bytes,
            },
        });
        Ok(format!("{}\n", serde_json::to_string_pretty(&json)?))
    }

    /// Lines for people.
    pub(super) fn table(&self) -> String {
        let Self { counts, usage, .. } = self;
        let kind = match usage.kind {
            StoreKind::Memory => "memory",
            StoreKind::Sqlite => "SQLite",
            StoreKind::Postgresql => "PostgreSQL",
        };
        let schema = usage.schema_version.map(|version| format!(", schema version {version}")).unwrap_or_default();
        let statuses =
            self.by_status.iter().map(|(status, rollouts)| format!("{} {}", thousands(*rollouts), status.as_str()));
        let statuses = statuses.collect::<Vec<_>>().join(", ");
        let times = match (usage.oldest_span, usage.newest_span) {
            (Some(oldest), Some(newest)) => {
                let ago = |time| age(self.now.since(time).as_secs());
                format!("the oldest ended {} ago, the newest {} ago", ago(oldest), ago(newest))
            }
            _ => String::new(),
        };
        let part = |name: &str, size: Option<u64>| size.map(|size| format!("{name} {}", bytes(size)));
        let unused = usage.unused_bytes.map(|unused| format!(" ({} unused)", bytes(unused))).unwrap_or_default();
        let database = if usage.kind == StoreKind::Sqlite { "file" } else { "tables" };
        let parts = [
            Some(format!("{database} {}{unused}", bytes(usage.database_bytes))),
            part("log", usage.log_bytes),
            part("spool", usage.spool_bytes),
        ];
        let parts = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let pieces = usage.piece_bytes.map(|size| {
            let number = usage.pieces.map(|pieces| format!("{}, ", show::count(pieces, "piece"))).unwrap_or_default();
            ("texts", format!("{number}{}", bytes(size)), "long texts, compressed, each stored once".to_owned())
        });
        let waiting = (counts.waiting > 0)
            .then(|| ("waiting", thousands(counts.waiting), "spans in the spool, not in the store yet".to_owned()));
        let lines = [
            Some(("store", escape_for_terminal(&self.place).into_owned(), format!("({kind}{schema})"))),
            Some(("rollouts", thousands(counts.rollouts), statuses)),
            Some(("attempts", thousands(counts.attempts), String::new())),
            Some(("spans", thousands(counts.spans), times)),
            waiting,
            Some(("on disk", bytes(usage.total_bytes()), parts)),
            pieces,
        ];
        let line = |(name, value, rest): (&str, String, String)| {
            let line = format!("{name:<9} {value:<10}  {rest}");
            format!("{}\n", line.trim_end())
        };
        lines.into_iter().flatten().map(line).collect()
    }
}

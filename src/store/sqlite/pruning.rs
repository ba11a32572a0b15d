//! Removal in slices, each a transaction of its own, so that other commands of the writer come between.
//!
//! A slice ends after [`SLICE`]. What it leaves to the next one is in its cursor; after a kill, the next prune begins anew.

use super::recent::Recent;
use super::retention::{by_attempt, note_at_attempts, remove_orphaned_texts, remove_rollout, size_bytes};
use super::statements::{PackedRow, append};
use super::sweep::{TABLES, sweep};
use super::traces::{remove_traces_of, sweep_traces};
use crate::store::pruning::{
    EndPlace, OldestGoal, PruneCursor, PruneLimits, PrunePhase, PruneRequest, PruneSlice, Pruned, SpanReplacement,
};
use crate::store::retention::{Retention, excess};
use crate::store::sql::{signed, status_list, unsigned};
use crate::trace::{RolloutId, RolloutStatus, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Removes a slice of what `request` selects, within a transaction of the caller.
pub(super) fn prune_slice(
    connection: &Connection,
    request: &PruneRequest,
    from: PruneCursor,
    own_limits: Retention,
    recent: &Recent,
    now: Timestamp,
) -> rusqlite::Result<PruneSlice> {
    let limits = match request {
        PruneRequest::OwnLimits => PruneLimits::of(own_limits, now),
        PruneRequest::Limits(limits) => *limits,
        PruneRequest::Rollouts(_) | PruneRequest::Replace(_) => PruneLimits::default(),
    };
    let until = Instant::now() + SLICE;
    let before = size_bytes(connection)?;
    let PruneCursor { phase, has_removed, is_exceeded } = from;
    let mut slice = Slice {
        connection,
        limits,
        request,
        recent,
        in_progress: HashMap::new(),
        removed: Pruned::default(),
        replaced: Vec::new(),
        has_removed,
        is_exceeded,
    };
    let mut next = Some(phase);
    while let Some(phase) = next.take() {
        next = slice.step(phase)?;
        if Instant::now() >= until {
            break;
        }
    }
    let Slice { mut removed, replaced, has_removed, is_exceeded, .. } = slice;
    removed.bytes = before.saturating_sub(size_bytes(connection)?);
    let is_exceeded_now = is_exceeded && next.is_none();
    let next = next.map(|phase| PruneCursor { phase, has_removed, is_exceeded });
    Ok(PruneSlice { removed, next, replaced, has_removed, is_exceeded: is_exceeded_now })
}

/// A slice, as it is made.
struct Slice<'a> {
    connection: &'a Connection,
    limits: PruneLimits,
    request: &'a PruneRequest,
    recent: &'a Recent,
    /// Whether rollouts are in progress, as far as this slice has met them.
    in_progress: HashMap<String, bool>,
    removed: Pruned,
    replaced: Vec<usize>,
    has_removed: bool,
    is_exceeded: bool,
}

/// A span that may have to go.
struct Candidate {
    id: i64,
    rollout: String,
    /// Its place in the order that the candidates are read in.
    nanos: i64,
}

impl Slice<'_> {
    /// Does a part that takes a few milliseconds. Returns what comes next; `None` at the end.
    fn step(&mut self, phase: PrunePhase) -> rusqlite::Result<Option<PrunePhase>> {
        match phase {
            PrunePhase::Start => match (self.request, self.limits.ended_before) {
                (PruneRequest::Rollouts(_), _) => Ok(Some(PrunePhase::Rollout(0))),
                (PruneRequest::Replace(_), _) => Ok(Some(PrunePhase::Replacement(0))),
                (_, Some(_)) => Ok(Some(PrunePhase::Ended(EndPlace::default()))),
                (_, None) => self.begin_oldest().map(Some),
            },
            PrunePhase::Ended(place) => self.remove_ended(place).map(Some),
            PrunePhase::Oldest { after, goal } => self.remove_oldest(after, goal).map(Some),
            PrunePhase::Rollout(at) => self.remove_rollout(at).map(Some),
            PrunePhase::Replacement(at) => self.replace(at).map(Some),
            PrunePhase::Unused { .. } | PrunePhase::Pages if !self.has_removed => Ok(None),
            PrunePhase::Unused { table, after } => self.remove_unused(table, &after).map(Some),
            PrunePhase::Pages => self.release_pages(),
        }
    }

    fn begin_oldest(&self) -> rusqlite::Result<PrunePhase> {
        let (spans, bytes) = (count(self.connection)?, size_bytes(self.connection)?);
        let goal = |used: u64, limit: u64| match excess(used, limit) {
            0 => u64::MAX,
            excess => used - excess,
        };
        let goal =
            OldestGoal::Left { spans: goal(spans, self.limits.max_spans), bytes: goal(bytes, self.limits.max_bytes) };
        Ok(PrunePhase::Oldest { after: 0, goal })
    }

    /// Removes some of the spans that ended too early, in the order of their ends.
    fn remove_ended(&mut self, mut place: EndPlace) -> rusqlite::Result<PrunePhase> {
        let before = self.limits.ended_before.map_or(0, |time| signed(time.unix_nanos));
        let (column, condition) = if place.is_open { ("start_ns", "end_ns IS NULL") } else { ("end_ns", "TRUE") };
        let sql = format!(
            "SELECT id, rollout_id, {column} FROM span WHERE {condition} AND {column} >= ?1 AND {column} < ?2
             ORDER BY {column} LIMIT ?3 OFFSET ?4"
        );
        let candidates = self.candidates(&sql, params![place.nanos, before, STEP_LIMIT, signed(place.kept)])?;
        let is_last = candidates.len() < STEP_SPANS;
        let mut old = Vec::new();
        for Candidate { id, rollout, nanos } in candidates {
            let is_kept = self.is_in_progress(&rollout)?;
            if nanos > place.nanos {
                (place.nanos, place.kept) = (nanos, 0);
            }
            place.kept += u64::from(is_kept);
            self.is_exceeded |= is_kept;
            old.extend((!is_kept).then_some(id));
        }
        self.remove_by_limits(&old)?;
        match (is_last, place.is_open) {
            (false, _) => Ok(PrunePhase::Ended(place)),
            (true, false) => Ok(PrunePhase::Ended(EndPlace { is_open: true, ..EndPlace::default() })),
            (true, true) => self.begin_oldest(),
        }
    }

    /// Removes some of the oldest spans.
    fn remove_oldest(&mut self, after: i64, goal: OldestGoal) -> rusqlite::Result<PrunePhase> {
        let done = PrunePhase::Unused { table: 0, after: Vec::new() };
        let OldestGoal::Left { spans, bytes } = goal else { return Ok(done) };
        let too_many = usize::try_from(count(self.connection)?.saturating_sub(spans)).unwrap_or(usize::MAX);
        let is_too_large = size_bytes(self.connection)? > bytes;
        if too_many == 0 && !is_too_large {
            return Ok(done);
        }
        let sql = "SELECT id, rollout_id, 0 FROM span WHERE id > ?1 ORDER BY id LIMIT ?2";
        let candidates = self.candidates(sql, params![after, STEP_LIMIT])?;
        let Some(last) = candidates.last().map(|span| span.id) else {
            self.is_exceeded = true;
            return Ok(done);
        };
        let most = if is_too_large { STEP_SPANS } else { too_many };
        let mut old = Vec::new();
        for Candidate { id, rollout, .. } in candidates {
            if old.len() < most && !self.is_in_progress(&rollout)? {
                old.push(id);
            }
        }
        self.remove_by_limits(&old)?;
        Ok(PrunePhase::Oldest { after: last, goal })
    }

    /// Removes some spans of the rollout at this place of the request, or what is left of it.
    fn remove_rollout(&mut self, at: usize) -> rusqlite::Result<PrunePhase> {
        let PruneRequest::Rollouts(rollouts) = self.request else { return Ok(PrunePhase::Pages) };
        let Some(id) = rollouts.get(at) else { return Ok(PrunePhase::Pages) };
        if self.is_in_progress(id.as_str())? {
            return Ok(PrunePhase::Rollout(at + 1));
        }
        let sql = "SELECT id, rollout_id, 0 FROM span WHERE rollout_id = ?1 LIMIT ?2";
        let spans: Vec<i64> =
            self.candidates(sql, params![id.as_str(), STEP_LIMIT])?.into_iter().map(|span| span.id).collect();
        // Traces go after their spans.
        self.remove_spans(&spans)?;
        if spans.len() == STEP_SPANS {
            return Ok(PrunePhase::Rollout(at));
        }
        let sql = "DELETE FROM trace WHERE trace_id IN (SELECT trace_id FROM trace WHERE rollout_id = ?1 LIMIT ?2)";
        let traces = self.connection.prepare_cached(sql)?.execute(params![id.as_str(), STEP_LIMIT])?;
        if traces == STEP_SPANS {
            return Ok(PrunePhase::Rollout(at));
        }
        if let Some(spans) = remove_rollout(self.connection, id)? {
            self.removed.rollouts += 1;
            self.removed.spans += spans;
            self.has_removed = true;
        }
        Ok(PrunePhase::Rollout(at + 1))
    }

    /// Makes the replacement at this place of the request, if all of its spans may go.
    fn replace(&mut self, at: usize) -> rusqlite::Result<PrunePhase> {
        let PruneRequest::Replace(replacements) = self.request else { return Ok(PrunePhase::Pages) };
        let Some(SpanReplacement { numbers, by }) = replacements.get(at) else { return Ok(PrunePhase::Pages) };
        let sql = "SELECT id, rollout_id, 0 FROM span WHERE id IN (SELECT value FROM json_each(?1))";
        let old = self.candidates(sql, [serde_json::Value::from(&**numbers).to_string()])?;
        let mut is_possible = old.len() == numbers.len();
        for Candidate { rollout, .. } in &old {
            is_possible = is_possible && !self.is_in_progress(rollout)?;
        }
        if is_possible {
            let rows: Vec<PackedRow> = by.iter().map(|span| PackedRow::encode(span, self.recent)).collect();
            append(self.connection, &[rows], self.recent, None)?;
            self.remove_spans(&old.iter().map(|span| span.id).collect::<Vec<_>>())?;
            let rollouts: BTreeSet<&str> = old.iter().map(|span| span.rollout.as_str()).collect();
            rollouts.into_iter().try_for_each(|rollout| remove_traces_of(self.connection, rollout))?;
            self.replaced.push(at);
        }
        Ok(PrunePhase::Replacement(at + 1))
    }

    fn remove_unused(&mut self, table: usize, after: &[String]) -> rusqlite::Result<PrunePhase> {
        let Some(unused) = TABLES.get(table) else {
            let next = sweep_traces(self.connection, after)?;
            return Ok(next.map_or(PrunePhase::Pages, |after| PrunePhase::Unused { table, after }));
        };
        let (removed, next) = sweep(self.connection, unused, after)?;
        if unused.name == "rollout" {
            self.removed.rollouts += removed;
        }
        Ok(match next {
            Some(after) => PrunePhase::Unused { table, after },
            None => PrunePhase::Unused { table: table + 1, after: Vec::new() },
        })
    }

    /// Returns some free pages to the file system.
    fn release_pages(&self) -> rusqlite::Result<Option<PrunePhase>> {
        let free = || self.connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0));
        let before = free()?;
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        let left = free()?;
        // A file of another program's making may not have what this takes.
        Ok((left > 0 && left < before).then_some(PrunePhase::Pages))
    }

    fn candidates(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<Candidate>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement
            .query_map(params, |row| Ok(Candidate { id: row.get(0)?, rollout: row.get(1)?, nanos: row.get(2)? }))?;
        rows.collect()
    }

    /// Removes spans, and notes that at their attempts.
    fn remove_by_limits(&mut self, ids: &[i64]) -> rusqlite::Result<()> {
        let removed = by_attempt(self.connection, ids)?;
        self.remove_spans(ids)?;
        note_at_attempts(self.connection, &removed)
    }

    fn remove_spans(&mut self, ids: &[i64]) -> rusqlite::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let sql = "DELETE FROM span WHERE id IN (SELECT value FROM json_each(?1))";
        let ids = serde_json::Value::from(ids).to_string();
        let removed = self.connection.prepare_cached(sql)?.execute([ids])?;
        remove_orphaned_texts(self.connection)?;
        self.removed.spans += removed as u64;
        self.has_removed |= removed > 0;
        Ok(())
    }

    fn is_in_progress(&mut self, rollout: &str) -> rusqlite::Result<bool> {
        if let Some(known) = self.in_progress.get(rollout) {
            return Ok(*known);
        }
        let sql = "SELECT json_extract(json, '$.status') FROM rollout WHERE rollout_id = ?1 AND registered";
        let mut statement = self.connection.prepare_cached(sql)?;
        let status: Option<String> = statement.query_row([rollout], |row| row.get(0)).optional()?;
        let is_final = |status: &str| RolloutStatus::ALL.iter().any(|one| one.is_final() && one.as_str() == status);
        let is_in_progress = status.is_some_and(|status| !is_final(&status));
        self.in_progress.insert(rollout.to_owned(), is_in_progress);
        Ok(is_in_progress)
    }
}

/// What a prune would remove, without removing it. Of the bytes, the share of the spans.
pub(super) fn preview(
    connection: &Connection,
    request: &PruneRequest,
    own_limits: Retention,
    now: Timestamp,
) -> rusqlite::Result<Pruned> {
    let all = count(connection)?;
    let (spans, rollouts) = match request {
        PruneRequest::OwnLimits => preview_limits(connection, PruneLimits::of(own_limits, now), all)?,
        PruneRequest::Limits(limits) => preview_limits(connection, *limits, all)?,
        PruneRequest::Rollouts(rollouts) => {
            let ids = serde_json::Value::from(rollouts.iter().map(RolloutId::as_str).collect::<Vec<_>>()).to_string();
            let sql = format!(
                "SELECT COALESCE(SUM((SELECT COUNT(*) FROM span WHERE span.rollout_id = rollout.rollout_id)), 0), COUNT(*)
                 FROM rollout WHERE rollout_id IN (SELECT value FROM json_each(?1)) AND rollout_id NOT IN ({})",
                in_progress()
            );
            connection.query_row(&sql, [ids], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))?
        }
        PruneRequest::Replace(replacements) => {
            let numbers: Vec<u64> = replacements.iter().flat_map(|one| one.numbers.iter().copied()).collect();
            let sql = format!(
                "SELECT COUNT(*) FROM span WHERE id IN (SELECT value FROM json_each(?1)) AND rollout_id NOT IN ({})",
                in_progress()
            );
            let numbers = serde_json::Value::from(numbers).to_string();
            (unsigned(connection.query_row(&sql, [numbers], |row| row.get(0))?), 0)
        }
    };
    let share = if all == 0 { 0.0 } else { spans as f64 / all as f64 };
    Ok(Pruned { spans, rollouts, bytes: (size_bytes(connection)? as f64 * share) as u64 })
}

/// Spans and rollouts that exceed limits, of `all` spans.
fn preview_limits(connection: &Connection, limits: PruneLimits, all: u64) -> rusqlite::Result<(u64, u64)> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let free = format!("rollout_id NOT IN ({})", in_progress());
    let old = limits.ended_before.map_or("FALSE".to_owned(), |time| {
        let nanos = signed(time.unix_nanos);
        format!("(end_ns < {nanos} OR (end_ns IS NULL AND start_ns < {nanos}))")
    });
    let expired = unsigned(number(&format!("SELECT COUNT(*) FROM span WHERE {old} AND {free}"))?);
    let size = size_bytes(connection)?;
    let left = all.saturating_sub(expired);
    let share = |bytes: u64| if size == 0 { 0.0 } else { (bytes as f64 / size as f64) * all as f64 };
    let left_bytes = size.saturating_sub((expired as f64 / all.max(1) as f64 * size as f64) as u64);
    let too_many = excess(left, limits.max_spans).max(share(excess(left_bytes, limits.max_bytes)).ceil() as u64);
    let oldest = format!("FROM (SELECT id FROM span WHERE NOT {old} AND {free} ORDER BY id LIMIT {too_many})");
    let (oldest, through) =
        connection.query_row(&format!("SELECT COUNT(*), COALESCE(MAX(id), 0) {oldest}"), [], |row| {
            Ok((unsigned(row.get(0)?), row.get::<_, i64>(1)?))
        })?;
    let rollouts = number(&format!(
        "SELECT COUNT(*) FROM rollout WHERE NOT registered AND NOT EXISTS
             (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id AND span.id > {through} AND NOT {old})"
    ))?;
    let removed = expired + oldest;
    Ok((removed, if removed == 0 { 0 } else { unsigned(rollouts) }))
}

/// The rollouts in progress, by an index.
fn in_progress() -> String {
    let states = status_list(|status| !status.is_final());
    format!("SELECT rollout_id FROM rollout WHERE registered AND json_extract(json, '$.status') IN ({states})")
}

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT spans FROM row_count")?.query_row([], |row| row.get(0)).map(unsigned)
}

/// How long a slice holds the writer.
const SLICE: Duration = Duration::from_millis(50);
/// Spans that are removed between two looks at the clock: a few milliseconds.
const STEP_SPANS: usize = 128;
const STEP_LIMIT: i64 = STEP_SPANS as i64;
/// Pages that are released between two looks at the clock.
const STEP_PAGES: usize = 128;

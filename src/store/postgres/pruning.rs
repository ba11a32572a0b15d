//! Removal in slices, each a transaction of its own: it holds the locks of few rows, and the server can vacuum between.

use super::append::append;
use super::error::QueryError;
use super::retention::{RemovedSpans, note_at_attempts, remove_rollout, remove_spans, remove_spans_by_attempt};
use super::traces::{remove_traces_of, sweep_traces};
use crate::store::pruning::{
    EndPlace, OldestGoal, PruneCursor, PruneLimits, PrunePhase, PruneRequest, PruneSlice, Pruned, SpanReplacement,
};
use crate::store::retention::{Retention, excess};
use crate::store::span_row::SpanRow;
use crate::store::sql::{signed, status_list, unsigned};
use crate::trace::{RolloutId, Timestamp};
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Error;

/// Removes a slice of what `request` selects. `max_bytes` is not applied.
pub(super) async fn prune_slice(
    connection: &mut Object,
    request: PruneRequest,
    from: PruneCursor,
    own_limits: Retention,
    now: Timestamp,
) -> Result<PruneSlice, QueryError> {
    let transaction = connection.transaction().await?;
    let limits = limits_of(&request, own_limits, now);
    let PruneCursor { phase, mut has_removed, mut is_exceeded } = from;
    let (mut removed, mut replaced) = (Pruned::default(), Vec::new());
    let next = match (phase, &request) {
        (PrunePhase::Start, PruneRequest::Rollouts(_)) => Some(PrunePhase::Rollout(0)),
        (PrunePhase::Start, PruneRequest::Replace(_)) => Some(PrunePhase::Replacement(0)),
        (PrunePhase::Replacement(at), PruneRequest::Replace(replacements)) => match replacements.get(at) {
            Some(replacement) => {
                if let Some(spans) = replace(&transaction, replacement).await? {
                    removed.spans = spans;
                    replaced.push(at);
                }
                Some(PrunePhase::Replacement(at + 1))
            }
            None => None,
        },
        (PrunePhase::Rollout(at), PruneRequest::Rollouts(rollouts)) => match rollouts.get(at) {
            Some(id) => Some(remove_part_of(&transaction, id, at, &mut removed).await?),
            None => None,
        },
        (PrunePhase::Start, _) => Some(begin(&transaction, &limits, &mut is_exceeded).await?),
        (PrunePhase::Ended(place), _) => {
            // By number, not by end: the place is that of a number.
            let before = limits.ended_before.map_or(0, |time| signed(time.unix_nanos));
            let condition = format!("(end_ns < {before} OR (end_ns IS NULL AND start_ns < {before}))");
            let (spans, last) = remove_some(&transaction, &condition, place.nanos, MAX_SPANS).await?;
            removed.spans = spans;
            match last {
                Some(last) => Some(PrunePhase::Ended(EndPlace { nanos: last, ..place })),
                None => {
                    // Those that made this part begin are left.
                    is_exceeded |= !has_removed;
                    Some(begin_oldest(&transaction, &limits, &mut is_exceeded).await?)
                }
            }
        }
        (PrunePhase::Oldest { after, goal: OldestGoal::Through(through) }, _) => {
            let (spans, last) = remove_some(&transaction, &format!("id <= {through}"), after, MAX_SPANS).await?;
            removed.spans = spans;
            Some(match last {
                Some(after) => PrunePhase::Oldest { after, goal: OldestGoal::Through(through) },
                None => unused(),
            })
        }
        (PrunePhase::Unused { table, after }, _) if has_removed => {
            let after = after.first().map_or("", String::as_str);
            let (rollouts, next) = remove_unused(&transaction, table, after).await?;
            removed.rollouts = rollouts;
            next
        }
        (PrunePhase::Unused { .. } | PrunePhase::Pages | PrunePhase::Rollout(_) | PrunePhase::Replacement(_), _) => {
            None
        }
        (PrunePhase::Oldest { .. }, _) => Some(unused()),
    };
    transaction.commit().await?;
    has_removed |= removed.spans > 0 || removed.rollouts > 0;
    let is_exceeded_now = is_exceeded && next.is_none();
    let next = next.map(|phase| PruneCursor { phase, has_removed, is_exceeded });
    Ok(PruneSlice { removed, next, replaced, has_removed, is_exceeded: is_exceeded_now })
}

fn limits_of(request: &PruneRequest, own_limits: Retention, now: Timestamp) -> PruneLimits {
    match request {
        PruneRequest::OwnLimits => PruneLimits::of(own_limits, now),
        PruneRequest::Limits(limits) => *limits,
        PruneRequest::Rollouts(_) | PruneRequest::Replace(_) => PruneLimits::default(),
    }
}

/// The first part that is needed. Whether spans are too old is seen from an index.
async fn begin(
    transaction: &Transaction<'_>,
    limits: &PruneLimits,
    is_exceeded: &mut bool,
) -> Result<PrunePhase, Error> {
    if let Some(time) = limits.ended_before {
        let sql = "SELECT EXISTS (SELECT 1 FROM span WHERE end_ns < $1)
             OR EXISTS (SELECT 1 FROM span WHERE end_ns IS NULL AND start_ns < $1)";
        if transaction.query_one(sql, &[&signed(time.unix_nanos)]).await?.get(0) {
            return Ok(PrunePhase::Ended(EndPlace::default()));
        }
    }
    begin_oldest(transaction, limits, is_exceeded).await
}

/// Finds the last span that has to go. Several programs may prune at once: each finds the same one.
async fn begin_oldest(
    transaction: &Transaction<'_>,
    limits: &PruneLimits,
    is_exceeded: &mut bool,
) -> Result<PrunePhase, Error> {
    if limits.max_spans == 0 {
        return Ok(unused());
    }
    let count: i64 = transaction.query_one("SELECT COUNT(*) FROM span", &[]).await?.get(0);
    let spans = signed(excess(unsigned(count), limits.max_spans));
    if spans == 0 {
        return Ok(unused());
    }
    let sql = format!(
        "SELECT COUNT(*), MAX(id) FROM (SELECT id FROM span WHERE {} ORDER BY id LIMIT $1) AS oldest",
        is_free("span")
    );
    let row = transaction.query_one(&sql, &[&spans]).await?;
    *is_exceeded |= row.get::<_, i64>(0) < spans;
    let through: Option<i64> = row.get(1);
    Ok(through.map_or(unused(), |through| PrunePhase::Oldest { after: 0, goal: OldestGoal::Through(through) }))
}

fn unused() -> PrunePhase {
    PrunePhase::Unused { table: 0, after: Vec::new() }
}

/// Removes the first spans after a number for which a condition holds, of rollouts that are not in progress, and notes that at their
/// attempts. Returns how many, and the number of the last one; `None` if there was none.
async fn remove_some(
    transaction: &Transaction<'_>,
    condition: &str,
    after: i64,
    limit: i64,
) -> Result<(u64, Option<i64>), QueryError> {
    let selected = format!(
        "id IN (SELECT id FROM span WHERE id > $1 AND {condition} AND {} ORDER BY id LIMIT $2)",
        is_free("span")
    );
    let rows = transaction.query(&remove_spans_by_attempt(&selected), &[&after, &limit]).await?;
    let removed: Vec<RemovedSpans> = rows.iter().map(RemovedSpans::of_row).collect();
    note_at_attempts(transaction, &removed).await?;
    Ok((removed.iter().map(|one| one.spans).sum(), removed.iter().map(|one| one.last).max()))
}

/// Removes some spans of a rollout, or what is left of it. Returns what comes next.
async fn remove_part_of(
    transaction: &Transaction<'_>,
    id: &RolloutId,
    at: usize,
    removed: &mut Pruned,
) -> Result<PrunePhase, Error> {
    let sql = format!("SELECT 1 FROM rollout WHERE rollout_id = $1 AND {} FOR UPDATE", is_free("rollout"));
    if transaction.query_opt(&sql, &[&id.as_str()]).await?.is_none() {
        return Ok(PrunePhase::Rollout(at + 1));
    }
    let selected = "id IN (SELECT id FROM span WHERE rollout_id = $1 LIMIT $2)";
    let row = transaction.query_one(&remove_spans(selected), &[&id.as_str(), &MAX_SPANS]).await?;
    let spans = unsigned(row.get(0));
    removed.spans += spans;
    if signed(spans) == MAX_SPANS {
        return Ok(PrunePhase::Rollout(at));
    }
    if let Some(spans) = remove_rollout(transaction, id).await? {
        removed.spans += spans;
        removed.rollouts += 1;
    }
    Ok(PrunePhase::Rollout(at + 1))
}

/// Stores spans in place of others, and removes the traces of their rollouts that have no spans then. Returns how many were removed;
/// `None` if one of them is not stored any more, or belongs to a rollout in progress.
async fn replace(transaction: &Transaction<'_>, replacement: &SpanReplacement) -> Result<Option<u64>, Error> {
    let SpanReplacement { numbers, by } = replacement;
    let numbers: Vec<i64> = numbers.iter().copied().map(signed).collect();
    // Rollouts are locked before spans, as by transactions that store spans.
    let sql = "SELECT rollout_id FROM rollout WHERE rollout_id IN (SELECT rollout_id FROM span WHERE id = ANY($1))
         ORDER BY rollout_id FOR UPDATE";
    let rollouts = transaction.query(sql, &[&numbers]).await?;
    let rollouts: Vec<&str> = rollouts.iter().map(|row| row.get(0)).collect();
    let sql = format!("SELECT id FROM span WHERE id = ANY($1) AND {} ORDER BY id FOR UPDATE", is_free("span"));
    if transaction.query(&sql, &[&numbers]).await?.len() < numbers.len() {
        return Ok(None);
    }
    append(transaction, &by.iter().map(SpanRow::encode).collect::<Vec<_>>(), None).await?;
    let row = transaction.query_one(&remove_spans("id = ANY($1)"), &[&numbers]).await?;
    remove_traces_of(transaction, &rollouts).await?;
    Ok(Some(unsigned(row.get(0))))
}

/// A condition on the rows of a table with a rollout id: the rollout is not in progress.
fn is_free(table: &str) -> String {
    let states = status_list(|status| !status.is_final());
    format!(
        "NOT EXISTS (SELECT 1 FROM rollout AS owner WHERE owner.rollout_id = {table}.rollout_id AND owner.registered
             AND owner.status IN ({states}))"
    )
}

/// Locks some of what nothing needs any more, in the order of keys. That waits for transactions that are storing spans of it, and the
/// removal then sees these spans.
const LOCK_ROLLOUTS: &str = "SELECT rollout_id FROM rollout WHERE rollout_id > $1 AND (
         (NOT registered AND NOT EXISTS (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id))
         OR EXISTS (SELECT 1 FROM attempt WHERE attempt.rollout_id = rollout.rollout_id AND NOT EXISTS
             (SELECT 1 FROM span WHERE span.rollout_id = attempt.rollout_id AND span.attempt_id = attempt.attempt_id)))
     ORDER BY rollout_id LIMIT $2 FOR UPDATE";

/// Statements that remove, after the removal of spans, the rows that only these spans needed: attempts that were never started,
/// unregistered rollouts without spans, and their places in the queue.
const REMOVE_ATTEMPTS: &str = "DELETE FROM attempt WHERE rollout_id = ANY($1) AND NOT EXISTS
         (SELECT 1 FROM span WHERE span.rollout_id = attempt.rollout_id AND span.attempt_id = attempt.attempt_id)
     AND (sequence_id = 0 OR NOT EXISTS
         (SELECT 1 FROM rollout WHERE rollout.rollout_id = attempt.rollout_id AND rollout.registered))";
const REMOVE_ROLLOUTS: &str = "DELETE FROM rollout WHERE rollout_id = ANY($1) AND NOT registered
     AND NOT EXISTS (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id)";
const REMOVE_PLACES: &str = "DELETE FROM queue WHERE rollout_id = ANY($1)
     AND NOT EXISTS (SELECT 1 FROM rollout WHERE rollout.rollout_id = queue.rollout_id)";

/// Removes some of the rows that no span needs any more, those after a key: rollouts (table 0), then traces (table 1). Returns the
/// number of removed rollouts, and what comes next.
async fn remove_unused(
    transaction: &Transaction<'_>,
    table: usize,
    after: &str,
) -> Result<(u64, Option<PrunePhase>), Error> {
    if table > 0 {
        let next = sweep_traces(transaction, after, MAX_SPANS).await?;
        return Ok((0, next.map(|last| PrunePhase::Unused { table, after: vec![last] })));
    }
    let locked = transaction.query(LOCK_ROLLOUTS, &[&after, &MAX_SPANS]).await?;
    let keys: Vec<&str> = locked.iter().map(|row| row.get(0)).collect();
    transaction.execute(REMOVE_ATTEMPTS, &[&keys]).await?;
    let rollouts = transaction.execute(REMOVE_ROLLOUTS, &[&keys]).await?;
    transaction.execute(REMOVE_PLACES, &[&keys]).await?;
    let (table, after) = match keys.last() {
        Some(last) if keys.len() == MAX_SPANS_OF_REQUEST => (0, vec![(*last).to_owned()]),
        _ => (1, Vec::new()),
    };
    Ok((rollouts, Some(PrunePhase::Unused { table, after })))
}

/// What a prune would remove, without removing it.
pub(super) async fn preview(
    connection: &Object,
    request: PruneRequest,
    own_limits: Retention,
    now: Timestamp,
) -> Result<Pruned, QueryError> {
    if let PruneRequest::Rollouts(rollouts) = &request {
        let ids: Vec<&str> = rollouts.iter().map(RolloutId::as_str).collect();
        let sql = format!(
            "SELECT (SELECT COUNT(*) FROM span WHERE rollout_id = ANY($1) AND {}),
                 (SELECT COUNT(*) FROM rollout WHERE rollout_id = ANY($1) AND {})",
            is_free("span"),
            is_free("rollout")
        );
        let row = connection.query_one(&sql, &[&ids]).await?;
        return Ok(Pruned { spans: unsigned(row.get(0)), rollouts: unsigned(row.get(1)), bytes: 0 });
    }
    if let PruneRequest::Replace(replacements) = &request {
        let numbers = replacements.iter().flat_map(|one| one.numbers.iter().copied());
        let numbers: Vec<i64> = numbers.map(signed).collect();
        let sql = format!("SELECT COUNT(*) FROM span WHERE id = ANY($1) AND {}", is_free("span"));
        let row = connection.query_one(&sql, &[&numbers]).await?;
        return Ok(Pruned { spans: unsigned(row.get(0)), rollouts: 0, bytes: 0 });
    }
    let limits = limits_of(&request, own_limits, now);
    let (free, before) = (is_free("span"), limits.ended_before.map_or(0, |time| signed(time.unix_nanos)));
    let is_old = format!("COALESCE(end_ns, start_ns, {before}) < {before}");
    let count = async |sql: String| Ok::<_, Error>(connection.query_one(&sql, &[]).await?.get::<_, i64>(0));
    let all = count("SELECT COUNT(*) FROM span".to_owned()).await?;
    let old = count(format!("SELECT COUNT(*) FROM span WHERE {is_old} AND {free}")).await?;
    let limit = excess(unsigned(all - old), limits.max_spans);
    let sql = format!(
        "SELECT COUNT(*), COALESCE(MAX(id), 0)
         FROM (SELECT id FROM span WHERE NOT {is_old} AND {free} ORDER BY id LIMIT {limit}) AS oldest"
    );
    let row = connection.query_one(&sql, &[]).await?;
    let (oldest, through): (i64, i64) = (row.get(0), row.get(1));
    if old + oldest == 0 {
        return Ok(Pruned::default());
    }
    let rollouts = count(format!(
        "SELECT COUNT(*) FROM rollout WHERE NOT registered AND NOT EXISTS
             (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id AND id > {through} AND NOT {is_old})"
    ));
    Ok(Pruned { spans: unsigned(old + oldest), rollouts: unsigned(rollouts.await?), bytes: 0 })
}

/// Spans that one transaction removes.
const MAX_SPANS_OF_REQUEST: usize = 2000;
const MAX_SPANS: i64 = MAX_SPANS_OF_REQUEST as i64;

//! Removal in slices, each a transaction of its own: it holds the locks of few rows, and the server can vacuum between.

use super::error::QueryError;
use super::retention::{remove_rollout, remove_spans};
use crate::store::pruning::{
    EndPlace, OldestGoal, PruneCursor, PruneLimits, PrunePhase, PruneRequest, PruneSlice, Pruned,
};
use crate::store::retention::{Retention, excess};
use crate::store::sql::{signed, status_list, unsigned};
use crate::trace::{RolloutId, Timestamp};
use deadpool_postgres::Object;
use tokio_postgres::{Error, Transaction};

/// Removes a slice of what `request` selects. `max_bytes` is not applied.
pub(super) async fn prune_slice(
    connection: &mut Object,
    request: PruneRequest,
    from: PruneCursor,
    own_limits: Retention,
    now: Timestamp,
) -> Result<PruneSlice, QueryError> {
    // The deadpool wrapper adds only a cache of statements.
    let client: &mut tokio_postgres::Client = connection;
    let transaction = client.transaction().await?;
    let limits = limits_of(&request, own_limits, now);
    let PruneCursor { phase, mut has_removed, mut is_exceeded } = from;
    let mut removed = Pruned::default();
    let next = match (phase, &request) {
        (PrunePhase::Start, PruneRequest::Rollouts(_)) => Some(PrunePhase::Rollout(0)),
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
        (PrunePhase::Unused { .. }, _) if has_removed => {
            removed.rollouts = remove_unused(&transaction).await?;
            None
        }
        (PrunePhase::Unused { .. } | PrunePhase::Pages | PrunePhase::Rollout(_), _) => None,
        (PrunePhase::Oldest { .. }, _) => Some(unused()),
    };
    transaction.commit().await?;
    has_removed |= removed.spans > 0 || removed.rollouts > 0;
    let is_exceeded_now = is_exceeded && next.is_none();
    let next = next.map(|phase| PruneCursor { phase, has_removed, is_exceeded });
    Ok(PruneSlice { removed, next, has_removed, is_exceeded: is_exceeded_now })
}

fn limits_of(request: &PruneRequest, own_limits: Retention, now: Timestamp) -> PruneLimits {
    match request {
        PruneRequest::OwnLimits => PruneLimits::of(own_limits, now),
        PruneRequest::Limits(limits) => *limits,
        PruneRequest::Rollouts(_) => PruneLimits::default(),
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

/// Removes the first spans after a number for which a condition holds, of rollouts that are not in progress. Returns how many, and the
/// number of the last one; `None` if there was none.
async fn remove_some(
    transaction: &Transaction<'_>,
    condition: &str,
    after: i64,
    limit: i64,
) -> Result<(u64, Option<i64>), Error> {
    let selected = format!(
        "id IN (SELECT id FROM span WHERE id > $1 AND {condition} AND {} ORDER BY id LIMIT $2)",
        is_free("span")
    );
    let row = transaction.query_one(&remove_spans(&selected), &[&after, &limit]).await?;
    Ok((unsigned(row.get(0)), row.get(1)))
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

/// A condition on the rows of a table with a rollout id: the rollout is not in progress.
fn is_free(table: &str) -> String {
    let states = status_list(|status| !status.is_final());
    format!(
        "NOT EXISTS (SELECT 1 FROM rollout AS owner WHERE owner.rollout_id = {table}.rollout_id AND owner.registered
             AND owner.status IN ({states}))"
    )
}

/// Statements that lock what [`REMOVE_UNUSED`] may remove. They wait for transactions that are storing spans of it, and the
/// removal then sees these spans.
const LOCK_UNUSED: [&str; 2] = [
    "SELECT 1 FROM rollout WHERE
         (NOT registered AND NOT EXISTS (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id))
         OR EXISTS (SELECT 1 FROM attempt WHERE attempt.rollout_id = rollout.rollout_id AND NOT EXISTS
             (SELECT 1 FROM span WHERE span.rollout_id = attempt.rollout_id AND span.attempt_id = attempt.attempt_id))
     ORDER BY rollout_id FOR UPDATE",
    "SELECT 1 FROM trace WHERE NOT EXISTS (SELECT 1 FROM span WHERE span.id = trace.last_span)
     ORDER BY trace_id FOR UPDATE",
];

/// Statements that remove, after the removal of spans, the rows that only these spans needed: attempts that were never started,
/// unregistered rollouts without spans, their places in the queue, and traces without spans.
const REMOVE_UNUSED: [&str; 4] = [
    "DELETE FROM attempt WHERE NOT EXISTS
         (SELECT 1 FROM span WHERE span.rollout_id = attempt.rollout_id AND span.attempt_id = attempt.attempt_id)
     AND (sequence_id = 0 OR NOT EXISTS
         (SELECT 1 FROM rollout WHERE rollout.rollout_id = attempt.rollout_id AND rollout.registered))",
    REMOVE_ROLLOUTS,
    "DELETE FROM queue WHERE NOT EXISTS (SELECT 1 FROM rollout WHERE rollout.rollout_id = queue.rollout_id)",
    "DELETE FROM trace WHERE NOT EXISTS (SELECT 1 FROM span WHERE span.id = trace.last_span)",
];
const REMOVE_ROLLOUTS: &str = "DELETE FROM rollout WHERE NOT registered
     AND NOT EXISTS (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id)";

/// Returns the number of removed rollouts.
async fn remove_unused(transaction: &Transaction<'_>) -> Result<u64, Error> {
    let mut rollouts = 0;
    for sql in LOCK_UNUSED.into_iter().chain(REMOVE_UNUSED) {
        let rows = transaction.execute(sql, &[]).await?;
        if sql == REMOVE_ROLLOUTS {
            rollouts = rows;
        }
    }
    Ok(rollouts)
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
const MAX_SPANS: i64 = 2000;

//! Spans into the tables: a handful of statements for a whole batch, each with arrays for its rows.
//!
//! Rows are locked in one order everywhere (rollouts, then attempts, by their ids), so that processes seldom meet.

use super::{decode, encode};
use crate::store::blob::{ExternalizedValue, Hash, take};
use crate::store::{Appended, Result, SpanObserver, StoreError, UNASSIGNED, signed, span_row, unsigned};
use crate::trace::{Attempt, AttemptId, Rollout, RolloutId, Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;
use tokio_postgres::{Error, Transaction};

/// A span, encoded for its row.
pub(super) struct Row {
    span: Arc<Span>,
    json: String,
    taken: Vec<ExternalizedValue>,
}

impl Row {
    /// Takes out what is long, and writes the rest as JSON.
    pub(super) fn encode(span: &Arc<Span>) -> Result<Self> {
        let taken = take(span);
        let json = span_row::json(span, &taken).map_err(|error| StoreError::Other(error.to_string()))?;
        Ok(Self { span: Arc::clone(span), json, taken })
    }
}

/// Stores spans, their rollouts and attempts with them.
pub(super) async fn append(
    transaction: &Transaction<'_>,
    rows: &[Row],
    heard: SpanObserver,
) -> std::result::Result<Appended, Error> {
    let now: Timestamp = SystemTime::now().into();
    ensure(transaction, rows, now).await?;
    let hashes = put_texts(transaction, rows).await?;
    let new = put_spans(transaction, rows).await?;
    put_references(transaction, rows, &new, &hashes).await?;
    let mut from: BTreeSet<(&RolloutId, &AttemptId)> = BTreeSet::new();
    for row in rows.iter().filter(|row| new.contains_key(&key(&row.span))) {
        from.insert((&row.span.rollout_id, &row.span.attempt_id));
    }
    for (rollout, attempt) in from {
        hear(transaction, rollout, attempt, heard, now).await?;
    }
    Ok(Appended { stored: new.len(), duplicates: rows.len() - new.len() })
}

/// Makes sure of the rollouts, attempts and traces.
async fn ensure(transaction: &Transaction<'_>, rows: &[Row], now: Timestamp) -> std::result::Result<(), Error> {
    let mut rollouts: BTreeMap<&RolloutId, (i64, Timestamp)> = BTreeMap::new();
    let mut attempts: BTreeMap<(&RolloutId, &AttemptId), Timestamp> = BTreeMap::new();
    let mut traces: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for Row { span, .. } in rows {
        let start = span.start_time.unwrap_or(now);
        let (last, _) = rollouts.entry(&span.rollout_id).or_insert((0, start));
        *last = signed(span.sequence_id).max(*last);
        attempts.entry((&span.rollout_id, &span.attempt_id)).or_insert(start);
        if span.rollout_id.as_str() != UNASSIGNED {
            traces.entry(&span.trace_id).or_insert((span.rollout_id.as_str(), span.attempt_id.as_str()));
        }
    }
    let (mut ids, mut lasts, mut starts, mut jsons) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, (last, start)) in rollouts {
        ids.push(id.as_str());
        lasts.push(last);
        starts.push(signed(start.unix_nanos));
        jsons.push(encode(&Rollout::running(id.clone(), start)));
    }
    let sql = "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
         SELECT id, FALSE, last, start, 'running', FALSE, json
         FROM unnest($1::TEXT[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[]) AS new (id, last, start, json)
         ON CONFLICT (rollout_id) DO UPDATE
             SET last_sequence_id = GREATEST(rollout.last_sequence_id, excluded.last_sequence_id)";
    let statement = transaction.prepare(sql).await?;
    transaction.execute(&statement, &[&ids, &lasts, &starts, &jsons]).await?;
    let known = {
        let (rollouts, ids): (Vec<&str>, Vec<&str>) =
            attempts.keys().map(|(rollout, attempt)| (rollout.as_str(), attempt.as_str())).unzip();
        let sql = "SELECT attempt.rollout_id, attempt.attempt_id FROM attempt
             JOIN unnest($1::TEXT[], $2::TEXT[]) AS wanted (rollout, attempt)
             ON attempt.rollout_id = wanted.rollout AND attempt.attempt_id = wanted.attempt";
        let rows = transaction.query(sql, &[&rollouts, &ids]).await?;
        rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1))).collect::<HashSet<_>>()
    };
    for ((rollout, attempt), start) in attempts {
        if !known.contains(&(rollout.as_str().to_owned(), attempt.as_str().to_owned())) {
            let new = Attempt::running(rollout.clone(), attempt.clone(), start);
            let sql = "INSERT INTO attempt (rollout_id, attempt_id, sequence_id, json)
                 SELECT $1, $2, 0, $3 FROM rollout WHERE rollout_id = $1 AND registered
                     AND EXISTS (SELECT 1 FROM attempt WHERE rollout_id = $1)
                 ON CONFLICT (rollout_id, attempt_id) DO NOTHING";
            // Its attempts are those that somebody started: one that only a span names is never the latest.
            let of_registered =
                transaction.execute(sql, &[&rollout.as_str(), &attempt.as_str(), &encode(&new)]).await? > 0;
            if !of_registered {
                put_attempt(transaction, &new).await?;
            }
        }
    }
    let (traces, owners): (Vec<&str>, Vec<(&str, &str)>) = traces.into_iter().unzip();
    let (rollouts, attempts): (Vec<&str>, Vec<&str>) = owners.into_iter().unzip();
    let sql = "INSERT INTO trace (trace_id, rollout_id, attempt_id)
         SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[]) ON CONFLICT (trace_id) DO NOTHING";
    transaction.execute(sql, &[&traces, &rollouts, &attempts]).await?;
    Ok(())
}

/// Adds an attempt, or replaces the one with its ids. A new one gets the next sequence id of its rollout, whose row is
/// locked.
pub(super) async fn put_attempt(
    transaction: &Transaction<'_>,
    attempt: &Attempt,
) -> std::result::Result<Attempt, Error> {
    let (rollout, id) = (attempt.rollout_id.as_str(), attempt.attempt_id.as_str());
    let sql = "INSERT INTO attempt (rollout_id, attempt_id, sequence_id, json)
         SELECT $1, $2, COALESCE(MAX(sequence_id), 0) + 1, $3 FROM attempt WHERE rollout_id = $1
         ON CONFLICT (rollout_id, attempt_id) DO UPDATE SET json = excluded.json RETURNING sequence_id";
    let statement = transaction.prepare(sql).await?;
    let row = transaction.query_one(&statement, &[&rollout, &id, &encode(attempt)]).await?;
    Ok(Attempt { sequence_id: unsigned(row.get(0)), ..attempt.clone() })
}

/// Stores the pieces that are not there; gives the last piece of every value.
async fn put_texts(
    transaction: &Transaction<'_>,
    rows: &[Row],
) -> std::result::Result<HashMap<(usize, usize), Hash>, Error> {
    let mut last = HashMap::new();
    // In the order of their names, as everybody inserts them.
    let mut pieces: BTreeMap<Hash, (Option<Hash>, usize, usize, usize)> = BTreeMap::new();
    for (of, row) in rows.iter().enumerate() {
        for (value, taken) in row.taken.iter().enumerate() {
            let mut before = None;
            for (at, piece) in taken.pieces.iter().enumerate() {
                pieces.entry(piece.hash).or_insert((before, of, value, at));
                before = Some(piece.hash);
            }
            last.extend(before.map(|hash| ((of, value), hash)));
        }
    }
    if pieces.is_empty() {
        return Ok(last);
    }
    let wanted: Vec<&[u8]> = pieces.keys().map(Hash::as_slice).collect();
    let there = transaction.query("SELECT hash FROM text WHERE hash = ANY($1)", &[&wanted]).await?;
    let there: HashSet<Vec<u8>> = there.iter().map(|row| row.get(0)).collect();
    let (mut hashes, mut parents, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for (hash, (before, of, value, at)) in &pieces {
        if !there.contains(hash.as_slice()) {
            let taken = &rows[*of].taken[*value];
            hashes.push(hash.to_vec());
            parents.push(before.map(|hash| hash.to_vec()));
            data.push(taken.pack(&taken.pieces[*at], &rows[*of].span));
        }
    }
    let sql = "INSERT INTO text (hash, parent, data) SELECT * FROM unnest($1::BYTEA[], $2::BYTEA[], $3::BYTEA[])
         ON CONFLICT (hash) DO NOTHING";
    transaction.execute(sql, &[&hashes, &parents, &data]).await?;
    Ok(last)
}

type Key = (String, String, String);

fn key(span: &Span) -> Key {
    (span.rollout_id.as_str().to_owned(), span.attempt_id.as_str().to_owned(), span.span_id.clone())
}

/// The numbers of those that are new.
async fn put_spans(transaction: &Transaction<'_>, rows: &[Row]) -> std::result::Result<HashMap<Key, i64>, Error> {
    let texts = |of: fn(&Span) -> &str| rows.iter().map(|row| of(&row.span)).collect::<Vec<&str>>();
    let nanos = |of: fn(&Span) -> Option<Timestamp>| -> Vec<Option<i64>> {
        rows.iter().map(|row| of(&row.span).map(|time| signed(time.unix_nanos))).collect()
    };
    let sequences: Vec<i64> = rows.iter().map(|row| signed(row.span.sequence_id)).collect();
    let errors: Vec<bool> = rows.iter().map(|row| row.span.is_error()).collect();
    let llm_calls: Vec<bool> = rows.iter().map(|row| row.span.is_llm_call()).collect();
    let jsons: Vec<&str> = rows.iter().map(|row| row.json.as_str()).collect();
    let sql = "INSERT INTO span (rollout_id, attempt_id, sequence_id, span_id, start_ns, end_ns, is_error, is_llm_call, json)
         SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::BIGINT[], $4::TEXT[], $5::BIGINT[], $6::BIGINT[], $7::BOOLEAN[], $8::BOOLEAN[],
             $9::TEXT[])
         ON CONFLICT (rollout_id, attempt_id, span_id) DO NOTHING RETURNING id, rollout_id, attempt_id, span_id";
    let statement = transaction.prepare(sql).await?;
    let new = transaction
        .query(
            &statement,
            &[
                &texts(|span| span.rollout_id.as_str()),
                &texts(|span| span.attempt_id.as_str()),
                &sequences,
                &texts(|span| &span.span_id),
                &nanos(|span| span.start_time),
                &nanos(|span| span.end_time),
                &errors,
                &llm_calls,
                &jsons,
            ],
        )
        .await?;
    Ok(new.iter().map(|row| ((row.get(1), row.get(2), row.get(3)), row.get(0))).collect())
}

async fn put_references(
    transaction: &Transaction<'_>,
    rows: &[Row],
    new: &HashMap<Key, i64>,
    hashes: &HashMap<(usize, usize), Hash>,
) -> std::result::Result<(), Error> {
    let (mut spans, mut attributes, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = HashSet::new();
    for (of, row) in rows.iter().enumerate() {
        // The same span twice in a batch is stored once.
        let Some(id) = new.get(&key(&row.span)).filter(|id| done.insert(**id)) else { continue };
        for (value, taken) in row.taken.iter().enumerate() {
            if let Some(hash) = hashes.get(&(of, value)) {
                spans.push(*id);
                attributes.push(taken.attribute.as_str());
                texts.push(hash.as_slice());
            }
        }
    }
    if spans.is_empty() {
        return Ok(());
    }
    let sql =
        "INSERT INTO span_text (span, attribute, hash) SELECT * FROM unnest($1::BIGINT[], $2::TEXT[], $3::BYTEA[])";
    transaction.execute(sql, &[&spans, &attributes, &texts]).await?;
    Ok(())
}

/// Something was heard from an attempt; if its rollout is registered, that has consequences.
async fn hear(
    transaction: &Transaction<'_>,
    rollout: &RolloutId,
    attempt: &AttemptId,
    heard: SpanObserver,
    now: Timestamp,
) -> std::result::Result<(), Error> {
    let sql = "SELECT rollout.json, rollout.start_ns, attempt.json, attempt.sequence_id,
             attempt.sequence_id = (SELECT MAX(sequence_id) FROM attempt WHERE rollout_id = $1)
         FROM rollout JOIN attempt ON attempt.rollout_id = rollout.rollout_id
         WHERE rollout.rollout_id = $1 AND attempt.attempt_id = $2 AND rollout.registered FOR UPDATE";
    let statement = transaction.prepare(sql).await?;
    let Some(row) = transaction.query_opt(&statement, &[&rollout.as_str(), &attempt.as_str()]).await? else {
        return Ok(());
    };
    let (mut of, attempt) = match (decode::<Rollout>(row.get(0)), decode::<Attempt>(row.get(2))) {
        (Ok(of), Ok(attempt)) => (of, attempt),
        // The spans are stored all the same.
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(error, rollout_id = %rollout, "a span's attempt can't be told that it was heard from");
            return Ok(());
        }
    };
    of.start_time = Timestamp::from_unix_nanos(unsigned(row.get(1)));
    let mut attempt = Attempt { sequence_id: unsigned(row.get(3)), ..attempt };
    let before = of.status;
    if heard(&mut of, &mut attempt, row.get(4), now) {
        put_attempt(transaction, &attempt).await?;
        if of.status != before {
            put_rollout(transaction, &of).await?;
        }
    }
    Ok(())
}

/// Locks a rollout, which is made as running if it is not there. True: it is in a final state.
pub(super) async fn lock_rollout(
    transaction: &Transaction<'_>,
    id: &RolloutId,
    start: Timestamp,
) -> std::result::Result<bool, Error> {
    let sql = "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
         VALUES ($1, FALSE, 0, $2, 'running', FALSE, $3)
         ON CONFLICT (rollout_id) DO UPDATE SET rollout_id = excluded.rollout_id
         RETURNING status IN ('succeeded', 'failed', 'cancelled')";
    let json = encode(&Rollout::running(id.clone(), start));
    let row = transaction.query_one(sql, &[&id.as_str(), &signed(start.unix_nanos), &json]).await?;
    Ok(row.get(0))
}

/// Registers a rollout, or replaces the one with its id. True: this ends it.
pub(super) async fn put_rollout(transaction: &Transaction<'_>, rollout: &Rollout) -> std::result::Result<bool, Error> {
    let ends = rollout.status.is_final() && !lock_rollout(transaction, &rollout.rollout_id, rollout.start_time).await?;
    let limited = rollout.config.timeout_seconds.is_some() || rollout.config.unresponsive_seconds.is_some();
    let sql = "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
         VALUES ($1, TRUE, 0, $2, $3, $4, $5)
         ON CONFLICT (rollout_id) DO UPDATE SET registered = TRUE, start_ns = excluded.start_ns,
             status = excluded.status, is_limited = excluded.is_limited, json = excluded.json";
    let statement = transaction.prepare(sql).await?;
    let start = signed(rollout.start_time.unix_nanos);
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&rollout.rollout_id.as_str(), &start, &rollout.status.as_str(), &limited, &encode(rollout)];
    transaction.execute(&statement, &parameters).await?;
    Ok(ends)
}

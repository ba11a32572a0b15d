//! Opens the store that arguments name, and finds the rollout and the attempt that the user means.

use super::args::StoreArgs;
use super::show::note;
use crate::app::{WhenUnreachable, open_store, open_store_for_reading, place_name, store_path};
use crate::config::{Config, StorePlace};
use crate::export::text::escape_for_terminal;
use crate::query::Query;
use crate::store::{RolloutFilter, SelectedRollouts, SharedStore};
use crate::trace::{Attempt, Rollout, RolloutId};
use anyhow::{Result, bail};

/// Opens the store that the arguments name. Returns it with its name for messages.
pub(super) async fn open_for_reading(args: &StoreArgs) -> Result<(SharedStore, String)> {
    let config = Config { store: args.settings(), ..Config::default() };
    let place = existing_place(&config)?;
    Ok((open_store_for_reading(&config).await?, place))
}

/// As [`open_for_reading`], for a query: a search of messages adds to the index of words in the store.
pub(super) async fn open_for_query(args: &StoreArgs, query: &Query) -> Result<(SharedStore, String)> {
    if query.phrases().next().is_none() {
        return open_for_reading(args).await;
    }
    let config = Config { store: args.settings(), ..Config::default() };
    let place = existing_place(&config)?;
    let store = open_store(&config, WhenUnreachable::Fail).await?;
    let through = store.words_through().await?;
    let missing = store.spans_by_number(through, 0).await?.newest.saturating_sub(through);
    if missing > MANY_SPANS {
        note(&format!(
            "tracewire: adding the messages of {missing} spans to the index of words; the next search is quick"
        ));
    }
    Ok((store, place))
}

/// The name of the store of the settings, which has to exist.
pub(super) fn existing_place(config: &Config) -> Result<String> {
    let place = place_name(&config.store);
    if matches!(config.store.place(), StorePlace::File(_)) && !store_path(&config.store).exists() {
        bail!("there is no trace store at {place}; create one with `tracewire run`, or set another with --store");
    }
    if config.store.place() == StorePlace::Memory {
        bail!("a store in memory is gone when its program has ended; name the file or the server with --store");
    }
    Ok(place)
}

/// The rollout with this id or with an id that begins with it, or the `latest`.
pub(super) async fn find_rollout(store: &SharedStore, wanted: &str, place: &str) -> Result<RolloutId> {
    if wanted == LATEST {
        let newest = store.rollouts(1).await?.into_iter().next();
        let Some(newest) = newest else { bail!("{place} has no rollouts; record one with `tracewire run`") };
        return Ok(newest.rollout.rollout_id);
    }
    if store.rollout(wanted.into()).await?.is_some() {
        return Ok(wanted.into());
    }
    let start = wanted.to_owned();
    let begins = move |rollout: &Rollout| !start.is_empty() && rollout.rollout_id.as_str().starts_with(&start);
    let mut rollouts = SelectedRollouts::by_start(store, RolloutFilter::default(), begins);
    let mut found = Vec::new();
    while found.len() <= MAX_LISTED_IDS
        && let Some(rollout) = rollouts.next().await?
    {
        found.push(rollout.rollout.rollout_id);
    }
    match found.as_slice() {
        [id] => Ok(id.clone()),
        [] => bail!("{place} has no rollout {wanted}; list its rollouts with `tracewire trace list`"),
        several => bail!("{wanted} is the beginning of several rollout ids: {}", some_of(several)),
    }
}

/// The attempt with this id or with an id that begins with it, or the `latest`.
pub(super) async fn find_attempt(store: &SharedStore, rollout: &RolloutId, wanted: &str) -> Result<Attempt> {
    let mut attempts = store.attempts(rollout.clone()).await?;
    attempts.sort_by_key(|attempt| attempt.sequence_id);
    let ids: Vec<_> = attempts.iter().map(|attempt| attempt.attempt_id.clone()).collect();
    if ids.is_empty() {
        bail!("rollout {rollout} has no attempt {wanted}; it has no attempts");
    }
    let is_wanted = |attempt: &Attempt| attempt.attempt_id.as_str() == wanted;
    if let Some(at) = attempts.iter().position(is_wanted) {
        return Ok(attempts.swap_remove(at));
    }
    if wanted == LATEST {
        attempts.reverse();
    } else {
        attempts.retain(|attempt| !wanted.is_empty() && attempt.attempt_id.as_str().starts_with(wanted));
        if attempts.len() > 1 {
            bail!("{wanted} is the beginning of several attempt ids: {}", some_of(&ids));
        }
    }
    match attempts.into_iter().next() {
        Some(attempt) => Ok(attempt),
        None => bail!("rollout {rollout} has no attempt {wanted}; it has {}", some_of(&ids)),
    }
}

/// Ids for a message.
fn some_of(ids: &[impl ToString]) -> String {
    let first = ids.iter().take(MAX_LISTED_IDS);
    let first: Vec<_> = first.map(|id| escape_for_terminal(&id.to_string()).into_owned()).collect();
    let others = if ids.len() > first.len() { ", …" } else { "" };
    format!("{}{others}", first.join(", "))
}

pub(super) const LATEST: &str = "latest";
const MAX_LISTED_IDS: usize = 5;
/// More spans than that take so long to read that it is said.
const MANY_SPANS: u64 = 20_000;

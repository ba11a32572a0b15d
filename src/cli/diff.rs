//! `tracewire diff`: where two rollouts part, and what each did then.

use super::args::StoreArgs;
use super::find::{LATEST, find_attempt, find_rollout, open_for_reading};
use super::terminal::{Paging, Screen, page};
use crate::export::spans::{ComparedRollout, ConversationOptions, Difference, TextLength, difference_text};
use crate::query::RolloutTotals;
use crate::store::{SharedStore, StoreExt};
use crate::trace::{RolloutId, Span};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// Arguments of `diff`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire diff ro-0123 ro-4567
  tracewire diff ro-0123 latest --json
It compares the conversations of the main agents in the latest attempts, message by message and token by token.
The exit code is 0 if they are the same, and 1 if they differ.")]
pub(super) struct DiffArgs {
    /// The first rollout's id, the beginning of it, or `latest`
    #[arg(value_name = "A")]
    one: String,
    /// The second rollout's id, the beginning of it, or `latest`
    #[arg(value_name = "B")]
    other: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the whole text of the messages at which they part
    #[arg(long, conflicts_with = "json")]
    full: bool,
    /// Print long output at once, without a pager
    #[arg(long)]
    no_pager: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) async fn run(args: DiffArgs) -> Result<ExitCode> {
    let (store, place) = open_for_reading(&args.store).await?;
    let (one, other) = (Side::read(&store, &args.one, &place).await?, Side::read(&store, &args.other, &place).await?);
    store.close().await?;
    let found = Difference::of([&one.spans, &other.spans]);
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&json!({ "rollouts": [one.id, other.id], "difference": found }))?)
    } else {
        let Screen { width, color, .. } = Screen::of_stdout();
        let length = if args.full { TextLength::Whole } else { TextLength::Beginning };
        let rollouts = [one.compared(), other.compared()];
        difference_text(&rollouts, &found, &ConversationOptions { width, color, length })
    };
    page(&text, if args.no_pager { Paging::Never } else { Paging::Auto })?;
    let is_same = found.same_messages && found.tokens.is_none();
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A rollout that is compared.
struct Side {
    id: RolloutId,
    status: &'static str,
    /// Of its latest attempt.
    spans: Vec<Span>,
}

impl Side {
    async fn read(store: &SharedStore, wanted: &str, place: &str) -> Result<Self> {
        let id = find_rollout(store, wanted, place).await?;
        let Some(rollout) = store.rollout(id.clone()).await? else { bail!("{place} has no rollout {id}") };
        let attempt = find_attempt(store, &id, LATEST).await?;
        let spans = store.spans(id.clone(), Some(attempt.attempt_id)).await?;
        Ok(Self { id, status: rollout.status.as_str(), spans })
    }

    fn compared(&self) -> ComparedRollout {
        let mut totals = RolloutTotals::default();
        self.spans.iter().for_each(|span| totals.add(span));
        let mut facts = vec![self.status.to_owned()];
        facts.extend(totals.reward().map(|reward| format!("reward {reward}")));
        facts.push(format!("{} + {} tokens", totals.input_tokens, totals.output_tokens));
        ComparedRollout { id: self.id.to_string(), facts }
    }
}

//! Which rollout a span of `emit` belongs to, and where it is stored: named by arguments, or by the environment that `run` and
//! `worker` give their commands.

use super::args::TargetArgs;
use super::emitted::send_span;
use crate::app::{WhenUnreachable, open_store};
use crate::cli::client::ServerClient;
use crate::cli::settings::read_config;
use crate::config::{Config, StorePlace};
use crate::run::{ATTEMPT_VARIABLE, ROLLOUT_VARIABLE, STORE_VARIABLE};
use crate::store::{SequenceAuthority, StoreExt};
use crate::trace::{AttemptId, RolloutId, Span, check_id};
use crate::util::secret::Secret;
use crate::wire::redact::Redactor;
use anyhow::{Context, Result, bail};
use std::sync::Arc;

/// A rollout, an attempt, and the place of their spans.
pub(super) struct Destination {
    pub(super) rollout: String,
    pub(super) attempt: String,
    place: Place,
}

enum Place {
    Server(Box<ServerClient>),
    Store(Box<Config>),
}

impl Destination {
    /// Reads arguments and environment. Contacts nothing.
    pub(super) fn of(args: TargetArgs) -> Result<Self> {
        let place = place(&args)?;
        let of_environment = checked(variable(ROLLOUT_VARIABLE), ROLLOUT_VARIABLE)?;
        let rollout = args
            .rollout
            .or_else(|| of_environment.clone())
            .context("no rollout: run this within `tracewire run` or `tracewire worker`, or name one with --rollout")?;
        // The attempt of the environment belongs to its rollout.
        let attempt = match args.attempt {
            Some(attempt) => Some(attempt),
            None if of_environment.as_ref() == Some(&rollout) => checked(variable(ATTEMPT_VARIABLE), ATTEMPT_VARIABLE)?,
            None => None,
        };
        let attempt = attempt.unwrap_or_else(|| AttemptId::default_of(&RolloutId::from(rollout.as_str())).to_string());
        Ok(Self { rollout, attempt, place })
    }

    /// Stores a span with the next sequence id of its rollout.
    pub(super) async fn store(self, mut span: Span) -> Result<()> {
        let config = match self.place {
            Place::Server(server) => return send_span(&server, span).await.map(drop),
            Place::Store(config) => config,
        };
        Redactor::new(config.redact.clone()).span(&mut span);
        let store = open_store(&config, WhenUnreachable::Fail).await?;
        let rollout = span.rollout_id.clone();
        let sequence_id = match store.sequence_authority() {
            SequenceAuthority::Store => store.next_sequence(rollout, 0).await?.last_sequence_id,
            SequenceAuthority::Process => {
                let last = store.sequence_state(rollout.clone()).await?.last_sequence_id;
                store.take_sequence(&rollout, last + 1)
            }
        };
        store.append(vec![Arc::new(Span { sequence_id, ..span })]).await?;
        Ok(store.close().await?)
    }
}

fn place(args: &TargetArgs) -> Result<Place> {
    let mut config = read_config(args.config.as_deref())?;
    if let Some(url) = &args.server {
        return server(url, args, &config);
    }
    args.store.apply(&mut config.store);
    if args.store.is_default() {
        match (variable(STORE_VARIABLE), variable(EVENT_URL_VARIABLE)) {
            (Some(path), _) => config.store.path = Some(path.into()),
            (None, Some(url)) => {
                let server_url = url.split("/api/rollouts/").next().unwrap_or_default().to_owned();
                return server(&server_url, args, &config);
            }
            (None, None) => bail!(
                "no store: run this within `tracewire run` or `tracewire worker`, or name one with --server or --store"
            ),
        }
    }
    if config.store.place() == StorePlace::Memory {
        bail!("the store of this run is in its memory, where only the run can write; start it with --store FILE");
    }
    Ok(Place::Store(Box::new(config)))
}

fn server(url: &str, args: &TargetArgs, config: &Config) -> Result<Place> {
    let token = args.token.clone().or_else(|| variable("TRACEWIRE_TOKEN")).or_else(|| variable("AGL_KEY"));
    Ok(Place::Server(Box::new(ServerClient::new(url, token.map(Secret::new), config)?)))
}

/// The id of a variable.
fn checked(id: Option<String>, name: &str) -> Result<Option<String>> {
    id.as_deref().map(check_id).transpose().with_context(|| format!("{name} is not usable"))?;
    Ok(id)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Set by `worker`: the URL of the attempt's events.
const EVENT_URL_VARIABLE: &str = "AGL_EVENT_URL";

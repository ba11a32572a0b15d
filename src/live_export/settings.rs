//! `[export]` of the settings.

use super::cursor::ExportStart;
use super::endpoint::Endpoint;
use super::otlp_settings::{OtlpSettings, default_timeout};
use super::settings_error::ExportSettingsError;
use crate::trace::units::millis;
use crate::util::secret::Secret;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[export]` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExportSettings {
    /// The receivers of spans and metrics over OTLP.
    pub otlp: Vec<OtlpSettings>,
    /// The receivers of the ends of rollouts.
    pub webhook: Vec<WebhookSettings>,
}

/// An entry of `[[export.webhook]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookSettings {
    /// Where ended rollouts are posted to.
    pub url: Endpoint,
    /// The name in metrics and messages, and of the cursor in the store. If empty, the URL is the name.
    #[serde(default)]
    pub name: String,
    /// What requests are signed with: text, or `whsec_` with base64. If empty, they are not signed.
    #[serde(default)]
    pub secret: Secret,
    /// How long a request may take, with its response.
    #[serde(default = "default_timeout", rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// How long after its end a rollout is read, so that its last spans are stored.
    #[serde(default = "default_delay", rename = "delay_ms", with = "millis")]
    pub delay: Duration,
    /// Which rollouts a new export begins with.
    #[serde(default)]
    pub start: ExportStart,
}

impl WebhookSettings {
    /// The name in metrics and messages.
    pub(super) fn shown_name(&self) -> &str {
        if self.name.is_empty() { self.url.as_str() } else { &self.name }
    }
}

impl ExportSettings {
    /// Adds exports, unless there is one of their name.
    pub(crate) fn add(&mut self, exports: Vec<OtlpSettings>) {
        for export in exports {
            if self.otlp.iter().all(|known| known.shown_name() != export.shown_name()) {
                self.otlp.push(export);
            }
        }
    }

    /// Checks what the types cannot.
    pub(crate) fn check(&self) -> Result<(), ExportSettingsError> {
        let mut names = std::collections::BTreeSet::new();
        for entry in &self.otlp {
            entry.check()?;
        }
        let all = self.otlp.iter().map(OtlpSettings::shown_name);
        for name in all.chain(self.webhook.iter().map(WebhookSettings::shown_name)) {
            if !names.insert(name) {
                return Err(ExportSettingsError::Twice { name: name.to_owned() });
            }
        }
        Ok(())
    }
}

fn default_delay() -> Duration {
    Duration::from_secs(1)
}

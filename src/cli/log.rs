//! The log on stderr: `TRACEWIRE_LOG` filters it, and `TRACEWIRE_LOG_FORMAT` sets its format.

use super::settings::variable;
use crate::app::LogOutput;
use std::io::IsTerminal;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log. `default_level` applies to Tracewire's own messages if `TRACEWIRE_LOG` is not set.
pub(super) fn start(default_level: LevelFilter) -> Result<(), LogSettingError> {
    let set = |name| variable(name).filter(|text| !text.is_empty()).map(|text| text.to_string_lossy().into_owned());
    let filter = match set("TRACEWIRE_LOG") {
        None => Targets::new().with_target("tracewire", default_level),
        Some(text) => parse_filter(&text)?,
    };
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(|| LogOutput);
    let format = match set("TRACEWIRE_LOG_FORMAT").as_deref() {
        None | Some("text") => to_stderr.with_target(false).with_ansi(has_color()).boxed(),
        Some("json") => to_stderr.json().flatten_event(true).boxed(),
        Some(other) => return Err(LogSettingError::Format(other.to_owned())),
    };
    // An error means that a log was started before, which then stays.
    let _ = tracing_subscriber::registry().with(format).with(filter).try_init();
    Ok(())
}

/// True if stderr is a terminal that shows colours.
fn has_color() -> bool {
    std::io::stderr().is_terminal() && variable("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogSettingError {
    /// A part of the filter.
    #[error(
        "TRACEWIRE_LOG: `{0}` is not a log level; use off, error, warn, info, debug or trace, alone or as TARGET=LEVEL, \
         separated by commas (example: tracewire=debug,hyper=warn)"
    )]
    Level(String),
    /// The whole value.
    #[error("TRACEWIRE_LOG_FORMAT: `{0}` is not a log format; use text or json")]
    Format(String),
}

/// Parses `LEVEL` (all targets) and `TARGET=LEVEL`, separated by commas.
fn parse_filter(text: &str) -> Result<Targets, LogSettingError> {
    let mut filter = Targets::new();
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let (target, level) =
            directive.rsplit_once('=').map_or((None, directive), |(target, level)| (Some(target), level));
        let level = level.parse::<LevelFilter>().map_err(|_| LogSettingError::Level(level.to_owned()))?;
        filter = match target {
            Some(target) => filter.with_target(target, level),
            None => filter.with_default(level),
        };
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn levels_and_targets_are_parsed() {
        let filter = parse_filter("warn, tracewire=debug,hyper=off").unwrap();
        assert!(filter.would_enable("tracewire::proxy", &Level::DEBUG) && !filter.would_enable("hyper", &Level::ERROR));
        assert!(filter.would_enable("other", &Level::WARN) && !filter.would_enable("other", &Level::INFO));
        for invalid in ["infoo", "tracewire=loud", "info,x"] {
            assert!(parse_filter(invalid).unwrap_err().to_string().contains("use off, error, warn"), "{invalid}");
        }
    }
}

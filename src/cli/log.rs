//! The log on stderr, filtered by the variable `TRACEWIRE_LOG`.

use super::settings::variable;
use super::show;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log. `default_level` applies to Tracewire's own messages if `TRACEWIRE_LOG` is not set or invalid.
pub(super) fn start(default_level: LevelFilter) {
    let default = || Targets::new().with_target("tracewire", default_level);
    let filter = match variable("TRACEWIRE_LOG").filter(|text| !text.is_empty()) {
        None => default(),
        Some(text) => parse_filter(&text.to_string_lossy()).unwrap_or_else(|error| {
            show::note(&format!("tracewire: TRACEWIRE_LOG is ignored: {error}"));
            default()
        }),
    };
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // An error means that a log was started before, which then stays.
    let _ = tracing_subscriber::registry().with(format).with(filter).try_init();
}

#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a log level; use off, error, warn, info, debug or trace, alone or as TARGET=LEVEL, separated by commas \
     (example: tracewire=debug,hyper=warn)"
)]
struct LogFilterError(String);

/// Parses `LEVEL` (all targets) and `TARGET=LEVEL`, separated by commas.
fn parse_filter(text: &str) -> Result<Targets, LogFilterError> {
    let mut filter = Targets::new();
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let (target, level) =
            directive.rsplit_once('=').map_or((None, directive), |(target, level)| (Some(target), level));
        let level = level.parse::<LevelFilter>().map_err(|_| LogFilterError(level.to_owned()))?;
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

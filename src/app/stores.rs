//! Where the program stores data: opens the store of the settings, and names its files.
//!
//! The only code that names concrete stores.

use crate::config::{Config, StorePlace, StoreSettings, data_folder};
use crate::rollout::lifecycle;
use crate::store::memory::MemoryStore;
pub(crate) use crate::store::postgres::WhenUnreachable;
use crate::store::postgres::{PostgresOptions, PostgresStore};
use crate::store::spool::SpooledStore;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{SharedStore, StoreError};
use crate::tls::UpstreamTls;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens the store of the settings (`store.path`).
pub(crate) async fn open_store(config: &Config, when_unreachable: WhenUnreachable) -> Result<SharedStore, StoreError> {
    let settings = &config.store;
    match settings.place() {
        StorePlace::Memory => {
            Ok(Arc::new(MemoryStore::new(settings.retention.limits()).with_observer(lifecycle::on_span_stored)))
        }
        StorePlace::File(_) => {
            let options = SqliteOptions {
                retention: settings.retention.limits(),
                synchronous: settings.synchronous,
                observer: Some(lifecycle::on_span_stored),
                ..SqliteOptions::default()
            };
            Ok(Arc::new(SqliteStore::open(&store_path(settings), options)?))
        }
        StorePlace::Postgres(url) => {
            let tls = UpstreamTls::new(&config.tls).map_err(|error| StoreError::Other(error.to_string()))?;
            let options = PostgresOptions {
                retention: settings.retention.limits(),
                observer: Some(lifecycle::on_span_stored),
                when_unreachable,
                ..PostgresOptions::default()
            };
            let server = Arc::new(PostgresStore::open(&url, tls.plain_config(), options).await?);
            Ok(Arc::new(SpooledStore::new(server, &home().join("spool"), settings.max_spool_bytes)?))
        }
    }
}

/// Opens the store of the settings without changing what is in it.
pub(crate) async fn open_store_for_reading(config: &Config) -> Result<SharedStore, StoreError> {
    let settings = &config.store;
    match settings.place() {
        StorePlace::File(_) => {
            Ok(Arc::new(SqliteStore::open_for_reading(&store_path(settings), SqliteOptions::default())?))
        }
        StorePlace::Memory | StorePlace::Postgres(_) => open_store(config, WhenUnreachable::Fail).await,
    }
}

/// The store's file: `store.path`, or `traces.db` in the data folder.
pub(crate) fn store_path(settings: &StoreSettings) -> PathBuf {
    settings.path.clone().unwrap_or_else(|| home().join("traces.db"))
}

/// The store's name for messages; without the password of a URL.
pub(crate) fn place_name(settings: &StoreSettings) -> String {
    match settings.place() {
        StorePlace::Memory => "memory only; use --store FILE to keep it".to_owned(),
        StorePlace::File(_) => store_path(settings).display().to_string(),
        StorePlace::Postgres(url) => crate::store::postgres::without_password(&url),
    }
}

/// The CA's folder: `tls.ca_dir`, or `ca` in the data folder.
pub(crate) fn ca_folder(config: &Config) -> PathBuf {
    config.tls.ca_dir.clone().map_or_else(|| home().join("ca"), absolute)
}

/// The folder of the spill file: that of the store's data. Without one, the folder for temporary files.
pub(crate) fn spill_folder(settings: &StoreSettings) -> PathBuf {
    match settings.place() {
        StorePlace::Memory => std::env::temp_dir(),
        StorePlace::File(_) => {
            let path = store_path(settings);
            path.parent()
                .filter(|folder| !folder.as_os_str().is_empty())
                .map_or_else(|| PathBuf::from("."), Path::to_owned)
        }
        StorePlace::Postgres(_) => home(),
    }
}

/// Absolute, as far as the working directory is known: the paths of its files are printed and inherited.
pub(super) fn home() -> PathBuf {
    absolute(data_folder(&|name| std::env::var_os(name)).unwrap_or_else(|| PathBuf::from(".tracewire")))
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

//! `[store]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// `[store]`: where the catalogue is. Without it there are declared keys only.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `[store.sqlite]`: a file of this machine.
    pub sqlite: SqliteSettings,
}

/// `[store.sqlite]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SqliteSettings {
    /// The file, on a local disk, in a folder that exists and that hsmac alone may write. The first
    /// start makes it; `-wal`, `-shm` and `.lock` files stand beside it.
    pub path: PathBuf,
}

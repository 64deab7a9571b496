//! `[admin]`

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use crate::front::SocketMode;

/// `[admin]`: where operators and their tools look. Without it there is nothing to look at.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A Unix socket with everything: the page, the state, metrics, probes, the level of the log. Who may
    /// open it is decided by `mode`. A path that is not absolute begins beside the configuration file.
    pub socket: Option<PathBuf>,
    /// The mode of the socket's file. Default "0600": hsmac's own user alone.
    pub mode: Option<SocketMode>,
    /// An address with `/livez`, `/readyz` and `/metrics` alone, for Prometheus and for Kubernetes.
    pub listen: Option<SocketAddr>,
}

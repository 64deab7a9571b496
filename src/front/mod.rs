//! What the network sees.

mod settings;

pub use settings::{Listen, Principal, Settings, SocketMode};

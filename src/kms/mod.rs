//! The operations of the KMS API.

mod settings;

pub use settings::{DeclaredKey, Settings};

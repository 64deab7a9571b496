//! AWS's wire.

mod access_key;
mod sigv4;

pub use access_key::{AccessKeys, DeclaredPrincipal, SecretAccessKey};

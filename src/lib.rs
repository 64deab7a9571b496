//! hsmac
pub mod error;
pub mod model;
pub mod proto;
pub mod token;

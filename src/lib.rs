//! hsmac
pub mod app;
pub mod cli;
pub mod config;
pub mod error;
pub mod front;
pub mod kms;
pub mod model;
pub mod proto;
pub mod telemetry;
pub mod token;
pub mod token_host;
pub mod wire;

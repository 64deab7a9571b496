//! What is known of the service, which comes on stdin as JSON, and how a check is told: a line with
//! `ok` or `FAILED`, a tab, what it was.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::{Sha224, Sha256, Sha384, Sha512};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub declared: String,
    pub nobody: String,
    pub keys: Vec<Key>,
}

/// A key of the service whose material is known.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    pub id: String,
    pub arn: String,
    pub alias: String,
    pub alias_arn: String,
    pub algorithm: String,
    material: String,
}

impl Key {
    /// The MAC that the service must make.
    pub fn mac(&self, message: &[u8]) -> Vec<u8> {
        let hex = |at: usize| u8::from_str_radix(&self.material[at..at + 2], 16);
        let material: Vec<u8> = (0..self.material.len())
            .step_by(2)
            .map(|at| hex(at).expect("material is hexadecimal"))
            .collect();
        match self.algorithm.as_str() {
            "HMAC_SHA_224" => mac::<Hmac<Sha224>>(&material, message),
            "HMAC_SHA_256" => mac::<Hmac<Sha256>>(&material, message),
            "HMAC_SHA_384" => mac::<Hmac<Sha384>>(&material, message),
            "HMAC_SHA_512" => mac::<Hmac<Sha512>>(&material, message),
            other => panic!("no such algorithm: {other}"),
        }
    }
}

fn mac<M: Mac + KeyInit>(material: &[u8], message: &[u8]) -> Vec<u8> {
    let mac = <M as KeyInit>::new_from_slice(material).expect("HMAC takes any key");
    mac.chain_update(message).finalize().into_bytes().to_vec()
}

static FAILED: AtomicBool = AtomicBool::new(false);

/// Tells a check.
pub fn holds(what: &str, met: bool, got: impl Debug) {
    if !met {
        println!("{got:?}");
        FAILED.store(true, Ordering::Relaxed);
    }
    println!("{}\t{what}", if met { "ok" } else { "FAILED" });
}

/// Tells whether two values are equal.
pub fn same<T: Debug + PartialEq>(what: &str, got: T, expected: T) {
    holds(what, got == expected, (&got, &expected));
}

/// Whether a check failed.
pub fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

//! The bare token's rate, in this process: what every figure of the bridge is compared with.

use std::time::{Duration, Instant};

use super::{
    keys::{Copies, Keys},
    module::Module,
    raw::MAX_MAC,
};
use crate::proto::host::{KeyDefinition, Settings};

/// What `hsmac bench token` found.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// MACs made.
    pub macs: u64,
    /// In this time.
    pub took: Duration,
    /// Whether the loop made two PKCS#11 calls a MAC, or three.
    pub two_calls: bool,
}

/// Makes MACs with one key on one session for so long: C_SignInit and C_Sign, nothing else.
///
/// # Errors
/// The fault in words, with the C function and its return code.
pub fn measure(
    settings: &Settings,
    key: KeyDefinition,
    message: &[u8],
    duration: Duration,
) -> Result<Measurement, String> {
    let words = |trouble: super::Trouble| trouble.to_string();
    let (mut module, _found) = Module::start(settings).map_err(words)?;
    let keeper = module.log_in(&settings.pin_file).map_err(words)?;
    let copies = if settings.working_copies {
        Copies::Reproved(Duration::from_secs(3600))
    } else {
        Copies::None
    };
    let keys = Keys::new(copies);
    let reference = key.reference;
    keys.define(key).map_err(words)?;
    let key = keys.key(reference).expect("the key was defined just now");
    let found = keys.find(&module, &keeper, &key).map_err(words)?;
    let opened = keys.open(&module, &keeper, &key, found).map_err(words)?;
    let mut mac = [0; MAX_MAC];
    let mut macs = 0;
    let began = Instant::now();
    while began.elapsed() < duration {
        for _ in 0..64 {
            keys.mac(&module, &keeper, &key, &opened, message, &mut mac)
                .map_err(words)?;
        }
        macs += 64;
    }
    let took = began.elapsed();
    let two_calls = module.has_two_calls();
    drop(keeper);
    module.finalize();
    Ok(Measurement {
        macs,
        took,
        two_calls,
    })
}

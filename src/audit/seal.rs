//! A sealed checkpoint as text: a C2SP signed note (<https://c2sp.org/signed-note>) with one signature of hsmac's own
//! type, an HMAC by an object in a token.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::model::Checkpoint;

/// A checkpoint, and the HMAC-SHA-256 that says that a token's key has sealed it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealedCheckpoint {
    /// What is sealed.
    pub checkpoint: Checkpoint,
    /// The seal, 32 bytes.
    pub seal: Vec<u8>,
}

impl SealedCheckpoint {
    /// The first four bytes of a signature, which tell keys and types apart.
    fn key_id(origin: &str) -> [u8; 4] {
        let hash = Sha256::new()
            .chain_update(origin)
            .chain_update(b"\n\xffhsmac/hmac-sha256-v1")
            .finalize();
        let [a, b, c, d, ..] = hash.0;
        [a, b, c, d]
    }
}

impl fmt::Display for SealedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checkpoint, seal } = self;
        let origin = &checkpoint.origin;
        let signature = STANDARD.encode([&Self::key_id(origin), seal.as_slice()].concat());
        write!(f, "{checkpoint}\n\u{2014} {origin} {signature}\n")
    }
}

impl FromStr for SealedCheckpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let checkpoint: Checkpoint = text.parse()?;
        let prefix = format!("{checkpoint}\n\u{2014} {} ", checkpoint.origin);
        let signature = text
            .strip_prefix(&prefix)
            .and_then(|rest| rest.strip_suffix('\n'))
            .and_then(|encoded| STANDARD.decode(encoded).ok());
        let seal = signature.and_then(|bytes| {
            let (key_id, seal) = bytes.split_at_checked(4)?;
            (key_id == Self::key_id(&checkpoint.origin)).then(|| seal.to_vec())
        });
        Ok(Self {
            seal: seal.ok_or("the checkpoint has no seal of hsmac's")?,
            checkpoint,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_checkpoint_is_a_signed_note_and_is_read_back() {
        let sealed = SealedCheckpoint {
            checkpoint: Checkpoint {
                origin: "hsmac/audit/1".into(),
                size: 20,
                root: [7; 32],
            },
            seal: vec![9; 32],
        };
        let text = sealed.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            ["hsmac/audit/1", "20", &STANDARD.encode([7; 32]), ""]
        );
        assert!(lines[4].starts_with("\u{2014} hsmac/audit/1 "), "{text}");
        assert_eq!(text.parse(), Ok(sealed));
        for wrong in [
            text.replace("\n\n", "\n"),
            text.replace("20", "21").replace('\u{2014}', "-"),
            text.trim_end().to_owned(),
            lines[..3].join("\n"),
            text.replace("hsmac/audit/1 ", "hsmac/audit/2 "),
        ] {
            assert!(wrong.parse::<SealedCheckpoint>().is_err(), "{wrong}");
        }
    }
}

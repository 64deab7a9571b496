//! Reserved messages: those that hsmac signs for its own purposes, and refuses to sign for clients.

use super::{Checkpoint, KeyId};

/// The first 16 bytes of every message that hsmac itself signs with a client's key. A client's
/// message that begins with them is refused, so that no client can ask for a key check value or for
/// an audit seal.
pub const RESERVED_PREFIX: &[u8; 16] = b"\x00hsmac-reserved\x00";

/// Whether a message begins with [`RESERVED_PREFIX`].
pub fn is_reserved(message: &[u8]) -> bool {
    message.starts_with(RESERVED_PREFIX)
}

/// The message whose full MAC, in the key spec's algorithm, is a key's check value.
pub fn key_check_message(key_id: &KeyId) -> Vec<u8> {
    let mut message = RESERVED_PREFIX.to_vec();
    message.extend_from_slice(b"key check v1\x00");
    message.extend_from_slice(key_id.as_str().as_bytes());
    message
}

/// The message whose HMAC-SHA-256 is a seal of the audit log: it says how large the log was, and its root.
pub fn audit_seal_message(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut message = RESERVED_PREFIX.to_vec();
    message.extend_from_slice(b"audit seal v1\x00");
    message.extend_from_slice(checkpoint.to_string().as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_messages_are_reserved_and_differ_by_key() {
        let one: KeyId = "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap();
        let other: KeyId = "1234abcd-12ab-34cd-56ef-1234567890ac".parse().unwrap();
        assert!(is_reserved(&key_check_message(&one)));
        assert_ne!(key_check_message(&one), key_check_message(&other));
        assert_eq!(
            key_check_message(&one),
            b"\x00hsmac-reserved\x00key check v1\x001234abcd-12ab-34cd-56ef-1234567890ab"
        );
    }

    #[test]
    fn seals_are_reserved_and_say_the_whole_checkpoint() {
        let checkpoint = Checkpoint {
            origin: "hsmac/audit/1".into(),
            size: 7,
            root: [0; 32],
        };
        let message = audit_seal_message(&checkpoint);
        assert!(is_reserved(&message));
        assert!(message.ends_with(checkpoint.to_string().as_bytes()));
    }

    #[test]
    fn fifteen_bytes_of_the_prefix_are_a_client_s_own() {
        assert!(!is_reserved(&RESERVED_PREFIX[..15]));
        assert!(is_reserved(RESERVED_PREFIX));
    }
}

//! Identifiers that nobody can guess and nobody else was given.

use uuid::Uuid;

/// A random UUID: 122 bits of the operating system's generator.
pub fn new_uuid() -> Uuid {
    #[cfg(test)]
    if let Some(uuid) = super::simulated::uuid() {
        return uuid;
    }
    Uuid::new_v4()
}

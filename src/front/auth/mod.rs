//! Who is on the other end of a connection.
//!
//! Hides: certificates, user IDs, access keys, reloads. Promises: a caller is a principal only by a
//! proof that holds now; a proof that was withdrawn ends the connection; peers without a proof are few,
//! stay for a short time, and cannot keep anybody else out. Does not: decide what a principal may do
//! (that is `kms`), check the signatures of requests (that is `aws::sigv4`).

pub(super) mod access;
pub(super) mod access_key;
pub(super) mod authenticator;
pub(super) mod certificate;
pub(super) mod connection;
pub(super) mod failure;
pub(super) mod peer;
pub(super) mod pre_auth;

#[cfg(test)]
pub(super) mod tests;

//! The one error that crosses rooms: a fault of the KMS API, with a public text for the client and
//! a private cause for the log.
//!
//! Each front translates [`Kind`] to its wire in one table without a wildcard arm, so a new fault
//! cannot be forgotten on one of them. Nothing that PKCS#11 or the store says reaches a client.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

/// What went wrong, in the vocabulary of the KMS API: one variant per KMS exception.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// The caller may not do this, or must not learn whether it could.
    AccessDenied,
    /// There is one of that name.
    AlreadyExists,
    /// The deadline passed in the queue or in the token.
    DependencyTimeout,
    /// The key is disabled.
    Disabled,
    /// The request would have succeeded, had it not been a dry run.
    DryRun,
    /// The key cannot have made what is to be undone.
    IncorrectKey,
    /// The Authorization header lacks a part, or has one in a wrong form.
    IncompleteSignature,
    /// A bug of ours or of the module.
    Internal,
    /// An alias cannot have that name.
    InvalidAliasName,
    /// The ARN has the wrong form for this operation.
    InvalidArn,
    /// The ciphertext was made by no key of ours.
    InvalidCiphertext,
    /// The grant token is none of ours.
    InvalidGrantToken,
    /// The key cannot do this operation or algorithm.
    InvalidKeyUsage,
    /// The MAC does not match the message.
    InvalidMac,
    /// The list marker is none of ours.
    InvalidMarker,
    /// The signature is not the caller's, or not for this service, region or time.
    InvalidSignature,
    /// The key's state does not allow the operation.
    InvalidState,
    /// The token is away; the key is not the reason.
    KeyUnavailable,
    /// A quota is used up.
    LimitExceeded,
    /// The policy is none, or would lock everybody out.
    MalformedPolicyDocument,
    /// Nothing proves who the caller is.
    MissingAuthenticationToken,
    /// Nobody may do this, whatever his rights: the name is AWS's.
    NotAuthorized,
    /// No such key or alias.
    NotFound,
    /// The request cannot be decoded.
    Serialization,
    /// The tags break a rule.
    Tag,
    /// The queue is full, or the caller is over its rate.
    Throttling,
    /// There is no such operation.
    UnknownOperation,
    /// Nobody has this access key.
    UnrecognizedClient,
    /// The operation exists but not for this key, token or version.
    UnsupportedOperation,
    /// A field breaks its constraint.
    Validation,
}

impl Kind {
    /// Every kind: both fronts' tests walk it.
    pub const ALL: [Self; 30] = [
        Self::AccessDenied,
        Self::AlreadyExists,
        Self::DependencyTimeout,
        Self::Disabled,
        Self::DryRun,
        Self::IncorrectKey,
        Self::IncompleteSignature,
        Self::Internal,
        Self::InvalidAliasName,
        Self::InvalidArn,
        Self::InvalidCiphertext,
        Self::InvalidGrantToken,
        Self::InvalidKeyUsage,
        Self::InvalidMac,
        Self::InvalidMarker,
        Self::InvalidSignature,
        Self::InvalidState,
        Self::KeyUnavailable,
        Self::LimitExceeded,
        Self::MalformedPolicyDocument,
        Self::MissingAuthenticationToken,
        Self::NotAuthorized,
        Self::NotFound,
        Self::Serialization,
        Self::Tag,
        Self::Throttling,
        Self::UnknownOperation,
        Self::UnrecognizedClient,
        Self::UnsupportedOperation,
        Self::Validation,
    ];

    /// KMS's name of the exception: what both wires call it.
    pub const fn exception(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::AlreadyExists => "AlreadyExistsException",
            Self::DependencyTimeout => "DependencyTimeoutException",
            Self::Disabled => "DisabledException",
            Self::DryRun => "DryRunOperationException",
            Self::IncorrectKey => "IncorrectKeyException",
            Self::IncompleteSignature => "IncompleteSignatureException",
            Self::Internal => "KMSInternalException",
            Self::InvalidAliasName => "InvalidAliasNameException",
            Self::InvalidArn => "InvalidArnException",
            Self::InvalidCiphertext => "InvalidCiphertextException",
            Self::InvalidGrantToken => "InvalidGrantTokenException",
            Self::InvalidKeyUsage => "InvalidKeyUsageException",
            Self::InvalidMac => "KMSInvalidMacException",
            Self::InvalidMarker => "InvalidMarkerException",
            Self::InvalidSignature => "InvalidSignatureException",
            Self::InvalidState => "KMSInvalidStateException",
            Self::KeyUnavailable => "KeyUnavailableException",
            Self::LimitExceeded => "LimitExceededException",
            Self::MalformedPolicyDocument => "MalformedPolicyDocumentException",
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::NotAuthorized => "NotAuthorizedException",
            Self::NotFound => "NotFoundException",
            Self::Serialization => "SerializationException",
            Self::Tag => "TagException",
            Self::Throttling => "ThrottlingException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::UnsupportedOperation => "UnsupportedOperationException",
            Self::Validation => "ValidationException",
        }
    }
}

/// A constraint that a field breaks, as KMS words it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The member's KMS name in camelCase (`macAlgorithm`); gRPC shows it in snake_case.
    pub member: &'static str,
    /// `Value … at '…' failed to satisfy constraint: Member must …`.
    pub text: String,
}

/// A fault of the API: a [`Kind`], what the client may read, and what only the log may.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    say: Cow<'static, str>,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A fault with its public text; empty where KMS sends none.
    pub fn new(kind: Kind, say: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            say: say.into(),
            violations: Vec::new(),
            retry_after: None,
            cause: None,
        }))
    }

    /// Broken constraints in KMS's form: `N validation errors detected: …; …`.
    pub fn violations(violations: Vec<Violation>) -> Self {
        let count = violations.len();
        let plural = if count == 1 { "" } else { "s" };
        let clauses = violations
            .iter()
            .map(|v| v.text.as_str())
            .collect::<Vec<_>>()
            .join("; ");
        let mut error = Self::new(
            Kind::Validation,
            format!("{count} validation error{plural} detected: {clauses}"),
        );
        error.0.violations = violations;
        error
    }

    /// Keeps what really happened, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Tells the client when to come back.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }

    /// Which fault it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The public text; empty where KMS sends none.
    pub fn say(&self) -> &str {
        &self.0.say
    }

    /// The broken constraints, for `BadRequest.field_violations`.
    pub fn field_violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// When to come back, if we know.
    pub fn pause(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The private cause, for the log only.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync)> {
        self.0.cause.as_deref()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("say", &self.0.say)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.say)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .cause
            .as_deref()
            .map(|cause| cause as &(dyn StdError + 'static))
    }
}

//! The one error that crosses rooms: a fault of the KMS API, with a public text for the client and
//! a private cause for the log.
//!
//! Each front translates [`Kind`] to its wire in one table without a wildcard arm, so a new fault
//! cannot be forgotten on one of them. Nothing that PKCS#11 or the store says reaches a client.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

/// What went wrong, in the vocabulary of the KMS API: one variant per KMS exception.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// The caller is not allowed to do this, or must not learn whether they are.
    AccessDenied,
    /// There is an alias or a resource of that name already.
    AlreadyExists,
    /// There is no such custom key store.
    CustomKeyStoreNotFound,
    /// The deadline passed in the queue or in the token.
    DependencyTimeout,
    /// The key is disabled.
    Disabled,
    /// The request would have succeeded, had it not been a dry run.
    DryRun,
    /// The ciphertext was not made with this key.
    IncorrectKey,
    /// The Authorization header lacks a part, or has one in a wrong form.
    IncompleteSignature,
    /// A bug of hsmac or of the PKCS#11 module.
    Internal,
    /// An alias cannot have that name.
    InvalidAliasName,
    /// The ARN has the wrong form for this operation.
    InvalidArn,
    /// The ciphertext was made by no key of this service.
    InvalidCiphertext,
    /// The grant ID has not the form of one.
    InvalidGrantId,
    /// The grant token was not made by this service.
    InvalidGrantToken,
    /// The key cannot do this operation or algorithm.
    InvalidKeyUsage,
    /// The MAC does not match the message.
    InvalidMac,
    /// The list marker was not made by this service.
    InvalidMarker,
    /// The signature is not the caller's, or not for this service, region or time.
    InvalidSignature,
    /// The key's state does not allow the operation.
    InvalidState,
    /// The token is away; the key is not the reason.
    KeyUnavailable,
    /// A quota is used up.
    LimitExceeded,
    /// The policy document is malformed, or would lock every principal out.
    MalformedPolicyDocument,
    /// The request carries no proof of who the caller is.
    MissingAuthenticationToken,
    /// No caller is allowed to do this, whatever their rights: AWS reserves the name.
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
    /// No principal has this access key.
    UnrecognizedClient,
    /// The operation exists but not for this key, token or version.
    UnsupportedOperation,
    /// A field breaks its constraint.
    Validation,
}

impl Kind {
    /// Every kind; the tests of both fronts go through all of them.
    pub const ALL: [Self; 32] = [
        Self::AccessDenied,
        Self::AlreadyExists,
        Self::CustomKeyStoreNotFound,
        Self::DependencyTimeout,
        Self::Disabled,
        Self::DryRun,
        Self::IncorrectKey,
        Self::IncompleteSignature,
        Self::Internal,
        Self::InvalidAliasName,
        Self::InvalidArn,
        Self::InvalidCiphertext,
        Self::InvalidGrantId,
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

    /// Whether the caller can do nothing about it: the token, a time-out, a bug.
    pub const fn is_ours(self) -> bool {
        matches!(
            self,
            Self::DependencyTimeout | Self::Internal | Self::KeyUnavailable
        )
    }

    /// Whether the caller has not proved who they are.
    pub const fn is_unauthenticated(self) -> bool {
        matches!(
            self,
            Self::IncompleteSignature
                | Self::InvalidSignature
                | Self::MissingAuthenticationToken
                | Self::UnrecognizedClient
        )
    }

    /// Whether it depends on who calls and how often, not on what they ask for.
    pub const fn is_refusal(self) -> bool {
        self.is_unauthenticated() || matches!(self, Self::AccessDenied | Self::Throttling)
    }

    /// KMS's name of the exception: what both wires call it.
    pub const fn exception(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::AlreadyExists => "AlreadyExistsException",
            Self::CustomKeyStoreNotFound => "CustomKeyStoreNotFoundException",
            Self::DependencyTimeout => "DependencyTimeoutException",
            Self::Disabled => "DisabledException",
            Self::DryRun => "DryRunOperationException",
            Self::IncorrectKey => "IncorrectKeyException",
            Self::IncompleteSignature => "IncompleteSignatureException",
            Self::Internal => "KMSInternalException",
            Self::InvalidAliasName => "InvalidAliasNameException",
            Self::InvalidArn => "InvalidArnException",
            Self::InvalidCiphertext => "InvalidCiphertextException",
            Self::InvalidGrantId => "InvalidGrantIdException",
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

/// A constraint that a member breaks, as KMS words it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    member: &'static str,
    path: Cow<'static, str>,
    value: ViolatingValue,
    must: Cow<'static, str>,
}

/// What a violation says of the member's value.
#[derive(Clone, Debug, Eq, PartialEq)]
enum ViolatingValue {
    Untold,
    Null,
    Told(String),
}

impl Violation {
    /// Of a member by its KMS name in camelCase (`macAlgorithm`; gRPC shows it in snake_case), whose value
    /// is not told. `must` is `Member must …`.
    pub fn new(member: &'static str, must: impl Into<Cow<'static, str>>) -> Self {
        Self {
            member,
            path: member.into(),
            value: ViolatingValue::Untold,
            must: must.into(),
        }
    }

    /// Of a member that must be there.
    pub fn null(member: &'static str) -> Self {
        Self {
            value: ViolatingValue::Null,
            ..Self::new(member, "Member must not be null")
        }
    }

    /// Tells the value, which must be no secret. It may be as long as a request.
    #[must_use]
    pub fn of(mut self, value: impl Into<String>) -> Self {
        self.value = ViolatingValue::Told(value.into());
        self
    }

    /// Says where in the member the value stands: `tags.1.member.tagKey`.
    #[must_use]
    pub fn at(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.path = path.into();
        self
    }

    /// The member's KMS name in camelCase.
    pub fn member(&self) -> &'static str {
        self.member
    }

    /// `Value '…' at '…' failed to satisfy constraint: Member must …`, with the value as `shown` shows it.
    pub fn text(&self, shown: impl Fn(&str) -> String) -> String {
        let value = match &self.value {
            ViolatingValue::Untold => String::new(),
            ViolatingValue::Null => " null".to_owned(),
            ViolatingValue::Told(value) => format!(" '{}'", shown(value)),
        };
        let (path, must) = (&self.path, &self.must);
        format!("Value{value} at '{path}' failed to satisfy constraint: {must}")
    }
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
        let mut error = Self::new(Kind::Validation, detected(&violations, str::to_owned));
        error.0.violations = violations;
        error
    }

    /// Adds the private cause, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds when the client may try again.
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

    /// The public text with the values of broken constraints as `shown` shows them.
    pub fn say_with(&self, shown: impl Fn(&str) -> String) -> Cow<'_, str> {
        if self.0.violations.is_empty() {
            return self.say().into();
        }
        detected(&self.0.violations, shown).into()
    }

    /// The broken constraints, for `BadRequest.field_violations`.
    pub fn field_violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// When the client may try again, if that is known.
    pub fn pause(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The private cause, for the log only.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync)> {
        self.0.cause.as_deref()
    }
}

fn detected(violations: &[Violation], shown: impl Fn(&str) -> String) -> String {
    let count = violations.len();
    let plural = if count == 1 { "" } else { "s" };
    let clauses: Vec<_> = violations.iter().map(|v| v.text(&shown)).collect();
    let clauses = clauses.join("; ");
    format!("{count} validation error{plural} detected: {clauses}")
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

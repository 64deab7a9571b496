//! Kinds of right and what each lets an operation do: one table, asked over both wires.

#![allow(dead_code, unreachable_pub, reason = "each wire uses its part")]

pub const ACCOUNT: &str = "111122223333";
pub const STRANGER: &str = "444455556666";

/// What a caller has been given, for a key of [`ACCOUNT`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Right {
    /// The key leaves it to its account, and the account gives the caller nothing.
    Nothing,
    Identity,
    Key,
    Both,
    /// Over a key policy that allows.
    IdentityDenies,
    /// Over an identity policy that allows.
    KeyDenies,
    /// The key policy has words for another account only.
    KeyOfOthers,
    StrangerIdentity,
    StrangerKey,
    StrangerBoth,
}

/// What an operation is about, which decides whose word counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum About {
    Account,
    /// A key of the caller's account is named, and its policy has no word.
    KeyOfOwnAccount,
    /// An alias is no resource of its own policy: the identity policy alone speaks for it.
    AliasAndKey,
    Key,
    /// The same, and callers of other accounts may be let in.
    KeyOfAnyAccount,
    /// A grant that the key's account has made: the key's policy can forbid it and not allow it.
    Grant,
}

/// Of an operation that is asked with a key wherever it can be.
pub fn about(operation: &str) -> About {
    match operation {
        "CreateKey"
        | "DescribeCustomKeyStores"
        | "GenerateRandom"
        | "ListKeys"
        | "ListRetirableGrants" => About::Account,
        "ListAliases" => About::KeyOfOwnAccount,
        "CreateAlias" | "DeleteAlias" | "UpdateAlias" => About::AliasAndKey,
        "CreateGrant"
        | "DescribeKey"
        | "GenerateMac"
        | "GetKeyRotationStatus"
        | "ListGrants"
        | "RevokeGrant"
        | "VerifyMac" => About::KeyOfAnyAccount,
        "RetireGrant" => About::Grant,
        _ => About::Key,
    }
}

impl Right {
    pub const ALL: [Self; 10] = [
        Self::Nothing,
        Self::Identity,
        Self::Key,
        Self::Both,
        Self::IdentityDenies,
        Self::KeyDenies,
        Self::KeyOfOthers,
        Self::StrangerIdentity,
        Self::StrangerKey,
        Self::StrangerBoth,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no rights",
            Self::Identity => "identity policy",
            Self::Key => "key policy",
            Self::Both => "both",
            Self::IdentityDenies => "identity policy denies",
            Self::KeyDenies => "key policy denies",
            Self::KeyOfOthers => "key for others",
            Self::StrangerIdentity => "stranger, identity policy",
            Self::StrangerKey => "stranger, key policy",
            Self::StrangerBoth => "stranger, both",
        }
    }

    /// The caller's account.
    pub fn account(self) -> &'static str {
        match self {
            Self::StrangerIdentity | Self::StrangerKey | Self::StrangerBoth => STRANGER,
            Self::Nothing
            | Self::Identity
            | Self::Key
            | Self::Both
            | Self::IdentityDenies
            | Self::KeyDenies
            | Self::KeyOfOthers => ACCOUNT,
        }
    }

    /// The statements of the caller's own policy.
    pub fn identity(self) -> Option<&'static str> {
        const MAY: &str = r#"{"Effect":"Allow","Action":"kms:*","Resource":"*"}"#;
        const MUST_NOT: &str = r#"{"Effect":"Allow","Action":"*","Resource":"*"},
            {"Effect":"Deny","Action":"kms:*","Resource":"*"}"#;
        match self {
            Self::Nothing | Self::Key | Self::StrangerKey => None,
            Self::IdentityDenies => Some(MUST_NOT),
            Self::Identity
            | Self::Both
            | Self::KeyDenies
            | Self::KeyOfOthers
            | Self::StrangerIdentity
            | Self::StrangerBoth => Some(MAY),
        }
    }

    /// The statements of the key's policy about a caller with this ARN.
    pub fn key(self, caller: &str) -> String {
        let to = |effect: &str, whom: &str| {
            format!(
                r#"{{"Effect":"{effect}","Principal":{{"AWS":"{whom}"}},"Action":"kms:*","Resource":"*"}}"#
            )
        };
        match self {
            Self::Nothing | Self::Identity | Self::StrangerIdentity => to("Allow", ACCOUNT),
            Self::Key | Self::Both | Self::IdentityDenies => to("Allow", caller),
            Self::KeyDenies => to("Allow", "*") + "," + &to("Deny", caller),
            Self::KeyOfOthers | Self::StrangerKey | Self::StrangerBoth => to("Allow", STRANGER),
        }
    }

    pub fn lets(self, operation: &str) -> bool {
        let about = about(operation);
        match self {
            Self::Nothing | Self::IdentityDenies | Self::StrangerKey => false,
            Self::Identity | Self::Both => true,
            Self::Key => matches!(about, About::Key | About::KeyOfAnyAccount),
            Self::KeyDenies => matches!(about, About::Account | About::KeyOfOwnAccount),
            Self::KeyOfOthers => {
                matches!(
                    about,
                    About::Account | About::KeyOfOwnAccount | About::Grant
                )
            }
            Self::StrangerIdentity => about == About::Account,
            Self::StrangerBoth => matches!(about, About::Account | About::KeyOfAnyAccount),
        }
    }
}

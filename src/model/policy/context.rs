//! Condition keys, and the values that a request has for them.

use std::borrow::Cow;

/// A condition key that IAM or KMS know (IAM: "AWS global condition context keys"; KMS: "AWS KMS
/// condition keys").
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    missing_docs,
    reason = "their names are those of IAM's and KMS's condition keys"
)]
pub enum ContextKey {
    CurrentTime,
    EpochTime,
    PrincipalAccount,
    PrincipalArn,
    PrincipalIsAwsService,
    PrincipalOrgId,
    PrincipalOrgPaths,
    /// The value of the principal's tag of this name.
    PrincipalTag(String),
    PrincipalType,
    RequestedRegion,
    ResourceAccount,
    ResourceOrgId,
    ResourceOrgPaths,
    /// The value of the key's tag of this name.
    ResourceTag(String),
    /// The value of this tag in the request.
    RequestTag(String),
    SecureTransport,
    SourceIdentity,
    SourceIp,
    TagKeys,
    TokenIssueTime,
    UserAgent,
    UserId,
    Username,
    ViaAwsService,
    BypassPolicyLockoutSafetyCheck,
    CallerAccount,
    GrantConstraintSourceArn,
    GrantConstraintType,
    GrantIsForAwsResource,
    GrantOperations,
    GranteePrincipal,
    GranteeServicePrincipal,
    KeyOrigin,
    KeySpec,
    KeyUsage,
    MacAlgorithm,
    MultiRegion,
    PolicyName,
    RequestAlias,
    ResourceAliases,
    RetiringPrincipal,
    RetiringServicePrincipal,
    ScheduleKeyDeletionPendingWindowInDays,
    /// A key that no request here has a value for, by its name.
    NeverPresent(&'static str),
}

impl ContextKey {
    /// Whether a request may have several values for it: conditions on it need ForAllValues or
    /// ForAnyValue.
    pub(super) fn has_several_values(&self) -> bool {
        matches!(
            self,
            Self::GrantOperations
                | Self::PrincipalOrgPaths
                | Self::ResourceAliases
                | Self::ResourceOrgPaths
                | Self::TagKeys
        )
    }

    /// Whether some request here has a value for it.
    pub(super) fn can_be_present(&self) -> bool {
        !matches!(self, Self::NeverPresent(_))
    }
}

/// Keys by their names. Some are older or other names of the same thing.
const KEYS: [(&str, ContextKey); 43] = [
    ("aws:CurrentTime", ContextKey::CurrentTime),
    ("aws:EpochTime", ContextKey::EpochTime),
    ("aws:PrincipalAccount", ContextKey::PrincipalAccount),
    ("aws:PrincipalArn", ContextKey::PrincipalArn),
    (
        "aws:PrincipalIsAWSService",
        ContextKey::PrincipalIsAwsService,
    ),
    ("aws:PrincipalOrgID", ContextKey::PrincipalOrgId),
    ("aws:PrincipalOrgPaths", ContextKey::PrincipalOrgPaths),
    ("aws:PrincipalType", ContextKey::PrincipalType),
    ("aws:RequestedRegion", ContextKey::RequestedRegion),
    ("aws:ResourceAccount", ContextKey::ResourceAccount),
    ("aws:ResourceOrgID", ContextKey::ResourceOrgId),
    ("aws:ResourceOrgPaths", ContextKey::ResourceOrgPaths),
    ("aws:SecureTransport", ContextKey::SecureTransport),
    ("aws:SourceIdentity", ContextKey::SourceIdentity),
    ("aws:SourceIp", ContextKey::SourceIp),
    ("aws:TagKeys", ContextKey::TagKeys),
    ("aws:TokenIssueTime", ContextKey::TokenIssueTime),
    ("aws:UserAgent", ContextKey::UserAgent),
    ("aws:userid", ContextKey::UserId),
    ("aws:username", ContextKey::Username),
    ("aws:ViaAWSService", ContextKey::ViaAwsService),
    ("aws:VpcSourceIp", ContextKey::SourceIp),
    (
        "kms:BypassPolicyLockoutSafetyCheck",
        ContextKey::BypassPolicyLockoutSafetyCheck,
    ),
    ("kms:CallerAccount", ContextKey::CallerAccount),
    (
        "kms:GrantConstraintSourceArn",
        ContextKey::GrantConstraintSourceArn,
    ),
    ("kms:GrantConstraintType", ContextKey::GrantConstraintType),
    (
        "kms:GrantIsForAWSResource",
        ContextKey::GrantIsForAwsResource,
    ),
    ("kms:GrantOperations", ContextKey::GrantOperations),
    ("kms:GranteePrincipal", ContextKey::GranteePrincipal),
    (
        "kms:GranteeServicePrincipal",
        ContextKey::GranteeServicePrincipal,
    ),
    ("kms:CustomerMasterKeySpec", ContextKey::KeySpec),
    ("kms:CustomerMasterKeyUsage", ContextKey::KeyUsage),
    ("kms:KeyOrigin", ContextKey::KeyOrigin),
    ("kms:KeySpec", ContextKey::KeySpec),
    ("kms:KeyUsage", ContextKey::KeyUsage),
    ("kms:MacAlgorithm", ContextKey::MacAlgorithm),
    ("kms:MultiRegion", ContextKey::MultiRegion),
    ("kms:PolicyName", ContextKey::PolicyName),
    ("kms:RequestAlias", ContextKey::RequestAlias),
    ("kms:ResourceAliases", ContextKey::ResourceAliases),
    ("kms:RetiringPrincipal", ContextKey::RetiringPrincipal),
    (
        "kms:RetiringServicePrincipal",
        ContextKey::RetiringServicePrincipal,
    ),
    (
        "kms:ScheduleKeyDeletionPendingWindowInDays",
        ContextKey::ScheduleKeyDeletionPendingWindowInDays,
    ),
];

/// What AWS has and a request to hsmac never has: VPC endpoints, AWS services that call for a
/// principal, federation, multi-factor authentication, the operations that HMAC keys do not take part
/// in.
const NEVER_PRESENT: [&str; 64] = [
    "aws:AssumedRoot",
    "aws:CalledVia",
    "aws:CalledViaAWSMCP",
    "aws:CalledViaFirst",
    "aws:CalledViaLast",
    "aws:ChatbotSourceArn",
    "aws:Ec2InstanceSourcePrivateIPv4",
    "aws:Ec2InstanceSourceVpc",
    "aws:FederatedProvider",
    "aws:MultiFactorAuthAge",
    "aws:MultiFactorAuthPresent",
    "aws:PrincipalServiceName",
    "aws:PrincipalServiceNamesList",
    "aws:referer",
    "aws:SignInSessionArn",
    "aws:SourceAccount",
    "aws:SourceArn",
    "aws:SourceOrgID",
    "aws:SourceOrgPaths",
    "aws:SourceVpc",
    "aws:SourceVpcArn",
    "aws:SourceVpce",
    "aws:ViaAWSMCPService",
    "aws:VpceAccount",
    "aws:VpceOrgID",
    "aws:VpceOrgPaths",
    "codebuild:BuildArn",
    "codebuild:ProjectArn",
    "ec2:RoleDelivery",
    "ec2:SourceInstanceArn",
    "glue:CredentialIssuingService",
    "glue:RoleAssumedBy",
    "identitystore:UserId",
    "lambda:SourceFunctionArn",
    "ssm:SourceInstanceArn",
    "kms:DataKeyPairSpec",
    "kms:EncryptionAlgorithm",
    "kms:EncryptionContextKeys",
    "kms:ExpirationModel",
    "kms:KeyAgreementAlgorithm",
    "kms:MessageType",
    "kms:MultiRegionKeyType",
    "kms:PrimaryRegion",
    "kms:ReEncryptOnSameKey",
    "kms:ReplicaRegion",
    "kms:RotationPeriodInDays",
    "kms:SigningAlgorithm",
    "kms:ValidTo",
    "kms:ViaService",
    "kms:WrappingAlgorithm",
    "kms:WrappingKeySpec",
    "saml:aud",
    "saml:cn",
    "saml:doc",
    "saml:iss",
    "saml:namequalifier",
    "saml:sub",
    "saml:sub_type",
    "sts:ExternalId",
    "sts:RoleSessionName",
    "sts:SourceIdentity",
    "cognito-identity.amazonaws.com:amr",
    "cognito-identity.amazonaws.com:aud",
    "cognito-identity.amazonaws.com:sub",
];

/// Of these a name of the policy's own follows.
const NEVER_PRESENT_PREFIXES: [&str; 2] = ["kms:EncryptionContext:", "kms:RecipientAttestation:"];

/// Where the values of condition keys come from.
pub trait Context {
    /// The values of a key in this request.
    fn values(&self, key: &ContextKey) -> Values<'_>;
}

/// The values of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Values<'a> {
    /// The request has none.
    Absent,
    /// The key has one value.
    One(Cow<'a, str>),
    /// The key is one of several values, of which there may be none.
    Several(Vec<Cow<'a, str>>),
}

impl Values<'_> {
    /// The values, whatever becomes of the request.
    pub fn into_owned(self) -> Values<'static> {
        let owned = |value: Cow<'_, str>| Cow::Owned(value.into_owned());
        match self {
            Values::Absent => Values::Absent,
            Values::One(value) => Values::One(owned(value)),
            Values::Several(values) => Values::Several(values.into_iter().map(owned).collect()),
        }
    }
}

/// Names of condition keys, and names of tags within them, are compared without regard to case.
///
/// # Errors
/// A sentence that quotes a name that is no condition key.
pub(super) fn context_key(name: &str) -> Result<ContextKey, String> {
    let lower = name.to_ascii_lowercase();
    let after = |prefix: &str| {
        lower
            .strip_prefix(&prefix.to_ascii_lowercase())
            .filter(|rest| !rest.is_empty())
            .map(str::to_owned)
    };
    type OfTag = fn(String) -> ContextKey;
    let tags: [(&str, OfTag); 3] = [
        ("aws:PrincipalTag/", ContextKey::PrincipalTag),
        ("aws:RequestTag/", ContextKey::RequestTag),
        ("aws:ResourceTag/", ContextKey::ResourceTag),
    ];
    if let Some(key) = tags.iter().find_map(|(prefix, of)| after(prefix).map(of)) {
        return Ok(key);
    }
    let known = KEYS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    if let Some((_, key)) = known {
        return Ok(key.clone());
    }
    let prefix = NEVER_PRESENT_PREFIXES
        .iter()
        .find(|prefix| after(prefix).is_some());
    let never = || {
        NEVER_PRESENT
            .iter()
            .find(|never| never.eq_ignore_ascii_case(name))
    };
    prefix
        .or_else(never)
        .map(|name| ContextKey::NeverPresent(name))
        .ok_or_else(|| format!("Condition has the unknown key {name:?}."))
}

//! The members of CreateGrant's request.

use super::{
    Member, MemberType,
    MemberType::{Enum, Flag, List, Map, Structure, Text},
    text,
};

/// In KMS's order.
pub(in crate::kms) const CREATE_GRANT: &[Member] = &[
    Member::required("keyId", Text(&text::KEY_ID)),
    Member::optional("granteePrincipal", Text(&text::PRINCIPAL_ID)),
    Member::optional("retiringPrincipal", Text(&text::PRINCIPAL_ID)),
    Member::required("operations", List(&Enum(&OPERATIONS), 0, usize::MAX)),
    Member::optional("constraints", Structure(CONSTRAINTS)),
    Member::optional("grantTokens", List(GRANT_TOKEN, 0, 10)),
    Member::optional("name", Text(&text::GRANT_NAME)),
    Member::optional("dryRun", Flag),
    Member::optional("granteeServicePrincipal", Text(&text::SERVICE_PRINCIPAL)),
    Member::optional("retiringServicePrincipal", Text(&text::SERVICE_PRINCIPAL)),
];

const GRANT_TOKEN: &MemberType = &Text(&text::GRANT_TOKEN);
const CONSTRAINTS: &[Member] = &[
    Member::optional("encryptionContextSubset", Map),
    Member::optional("encryptionContextEquals", Map),
    Member::optional("sourceArn", Text(&text::SOURCE_ARN)),
];

/// KMS: GrantOperation, of which a key's usage decides what fits it.
const OPERATIONS: [&str; 19] = [
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
    "Sign",
    "Verify",
    "GetPublicKey",
    "CreateGrant",
    "RetireGrant",
    "DescribeKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateMac",
    "VerifyMac",
    "DeriveSharedSecret",
    "Encapsulate",
    "Decapsulate",
];

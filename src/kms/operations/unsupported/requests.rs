//! The members of requests that end in a refusal, as KMS's model has them: a request that is wrong in
//! itself is told so first.

use super::super::validate::{
    Member, MemberType,
    MemberType::{Blob, Date, Enum, Flag, List, Map, Number, Structure, Text},
    text,
};
use crate::model::UnsupportedOperation as Op;

impl Op {
    /// The members of its request, in KMS's order.
    pub const fn members(self) -> &'static [Member] {
        match self {
            Self::Decapsulate => DECAPSULATE,
            Self::Decrypt => DECRYPT,
            Self::DeleteImportedKeyMaterial => DELETE_IMPORTED_KEY_MATERIAL,
            Self::DeriveSharedSecret => DERIVE_SHARED_SECRET,
            Self::Encapsulate => ENCAPSULATE,
            Self::Encrypt => ENCRYPT,
            Self::GenerateDataKey => GENERATE_DATA_KEY,
            Self::GenerateDataKeyPair => GENERATE_DATA_KEY_PAIR,
            Self::GenerateDataKeyPairWithoutPlaintext => GENERATE_DATA_KEY_PAIR_WITHOUT_PLAINTEXT,
            Self::GenerateDataKeyWithoutPlaintext => GENERATE_DATA_KEY_WITHOUT_PLAINTEXT,
            Self::GetParametersForImport => GET_PARAMETERS_FOR_IMPORT,
            Self::GetPublicKey => GET_PUBLIC_KEY,
            Self::ImportKeyMaterial => IMPORT_KEY_MATERIAL,
            Self::ReEncrypt => RE_ENCRYPT,
            Self::ReplicateKey => REPLICATE_KEY,
            Self::Sign => SIGN,
            Self::UpdatePrimaryRegion => UPDATE_PRIMARY_REGION,
            Self::Verify => VERIFY,
        }
    }
}

const DECAPSULATE: &[Member] = &[
    KEY_ID,
    Member::required("sharedSecretCiphertextBlob", CIPHERTEXT),
    Member::required("encapsulationAlgorithm", Enum(&["ML_KEM"])),
    GRANT_TOKENS,
    DRY_RUN,
];
const DECRYPT: &[Member] = &[
    Member::optional("ciphertextBlob", CIPHERTEXT),
    ENCRYPTION_CONTEXT,
    GRANT_TOKENS,
    Member::optional("keyId", Text(&text::KEY_ID)),
    ENCRYPTION_ALGORITHM,
    RECIPIENT,
    DRY_RUN,
    DRY_RUN_MODIFIERS,
];
const DELETE_IMPORTED_KEY_MATERIAL: &[Member] = &[KEY_ID, KEY_MATERIAL_ID];
const DERIVE_SHARED_SECRET: &[Member] = &[
    KEY_ID,
    Member::required("keyAgreementAlgorithm", Enum(&["ECDH"])),
    Member::required("publicKey", Blob(8192)),
    GRANT_TOKENS,
    DRY_RUN,
    RECIPIENT,
];
const ENCAPSULATE: &[Member] = &[
    KEY_ID,
    Member::required("encapsulationAlgorithm", Enum(&["ML_KEM"])),
    GRANT_TOKENS,
    DRY_RUN,
];
const ENCRYPT: &[Member] = &[
    KEY_ID,
    Member::required("plaintext", Blob(4096)),
    ENCRYPTION_CONTEXT,
    GRANT_TOKENS,
    ENCRYPTION_ALGORITHM,
    DRY_RUN,
];
const GENERATE_DATA_KEY: &[Member] = &[
    KEY_ID,
    ENCRYPTION_CONTEXT,
    Member::optional("numberOfBytes", Number(1, 1024)),
    DATA_KEY_SPEC,
    GRANT_TOKENS,
    RECIPIENT,
    DRY_RUN,
];
const GENERATE_DATA_KEY_PAIR: &[Member] = &[
    ENCRYPTION_CONTEXT,
    KEY_ID,
    KEY_PAIR_SPEC,
    GRANT_TOKENS,
    RECIPIENT,
    DRY_RUN,
];
const GENERATE_DATA_KEY_PAIR_WITHOUT_PLAINTEXT: &[Member] = &[
    ENCRYPTION_CONTEXT,
    KEY_ID,
    KEY_PAIR_SPEC,
    GRANT_TOKENS,
    DRY_RUN,
];
const GENERATE_DATA_KEY_WITHOUT_PLAINTEXT: &[Member] = &[
    KEY_ID,
    ENCRYPTION_CONTEXT,
    DATA_KEY_SPEC,
    Member::optional("numberOfBytes", Number(1, 1024)),
    GRANT_TOKENS,
    DRY_RUN,
];
const GET_PARAMETERS_FOR_IMPORT: &[Member] = &[
    KEY_ID,
    Member::required(
        "wrappingAlgorithm",
        Enum(&[
            "RSAES_PKCS1_V1_5",
            "RSAES_OAEP_SHA_1",
            "RSAES_OAEP_SHA_256",
            "RSA_AES_KEY_WRAP_SHA_1",
            "RSA_AES_KEY_WRAP_SHA_256",
            "SM2PKE",
        ]),
    ),
    Member::required(
        "wrappingKeySpec",
        Enum(&["RSA_2048", "RSA_3072", "RSA_4096", "SM2"]),
    ),
];
const GET_PUBLIC_KEY: &[Member] = &[KEY_ID, GRANT_TOKENS];
const IMPORT_KEY_MATERIAL: &[Member] = &[
    KEY_ID,
    Member::required("importToken", CIPHERTEXT),
    Member::required("encryptedKeyMaterial", CIPHERTEXT),
    Member::optional("validTo", Date),
    Member::optional(
        "expirationModel",
        Enum(&["KEY_MATERIAL_EXPIRES", "KEY_MATERIAL_DOES_NOT_EXPIRE"]),
    ),
    Member::optional(
        "importType",
        Enum(&["NEW_KEY_MATERIAL", "EXISTING_KEY_MATERIAL"]),
    ),
    Member::optional(
        "keyMaterialDescription",
        Text(&text::KEY_MATERIAL_DESCRIPTION),
    ),
    KEY_MATERIAL_ID,
];
const RE_ENCRYPT: &[Member] = &[
    Member::optional("ciphertextBlob", CIPHERTEXT),
    Member::optional("sourceEncryptionContext", Map),
    Member::optional("sourceKeyId", Text(&text::KEY_ID)),
    Member::required("destinationKeyId", Text(&text::KEY_ID)),
    Member::optional("destinationEncryptionContext", Map),
    Member::optional("sourceEncryptionAlgorithm", Enum(&ENCRYPTION_ALGORITHMS)),
    Member::optional(
        "destinationEncryptionAlgorithm",
        Enum(&ENCRYPTION_ALGORITHMS),
    ),
    GRANT_TOKENS,
    DRY_RUN,
    DRY_RUN_MODIFIERS,
];
const REPLICATE_KEY: &[Member] = &[
    KEY_ID,
    Member::required("replicaRegion", Text(&text::REGION)),
    Member::optional("policy", Text(&text::POLICY)),
    Member::optional("bypassPolicyLockoutSafetyCheck", Flag),
    Member::optional("description", Text(&text::DESCRIPTION)),
    Member::optional("tags", List(&Structure(TAG), 0, usize::MAX)),
];
const SIGN: &[Member] = &[
    KEY_ID,
    MESSAGE,
    MESSAGE_TYPE,
    GRANT_TOKENS,
    SIGNING_ALGORITHM,
    DRY_RUN,
];
const UPDATE_PRIMARY_REGION: &[Member] = &[
    KEY_ID,
    Member::required("primaryRegion", Text(&text::REGION)),
];
const VERIFY: &[Member] = &[
    KEY_ID,
    MESSAGE,
    MESSAGE_TYPE,
    Member::required("signature", CIPHERTEXT),
    SIGNING_ALGORITHM,
    GRANT_TOKENS,
    DRY_RUN,
];

// Members that several have.

const DATA_KEY_SPEC: Member = Member::optional("keySpec", Enum(&["AES_256", "AES_128"]));
const DRY_RUN: Member = Member::optional("dryRun", Flag);
const DRY_RUN_MODIFIERS: Member = Member::optional(
    "dryRunModifiers",
    List(&Enum(&["IGNORE_CIPHERTEXT"]), 0, usize::MAX),
);
const ENCRYPTION_ALGORITHM: Member =
    Member::optional("encryptionAlgorithm", Enum(&ENCRYPTION_ALGORITHMS));
const ENCRYPTION_CONTEXT: Member = Member::optional("encryptionContext", Map);
const GRANT_TOKENS: Member = Member::optional("grantTokens", List(GRANT_TOKEN, 0, 10));
const GRANT_TOKEN: &MemberType = &Text(&text::GRANT_TOKEN);
const KEY_ID: Member = Member::required("keyId", Text(&text::KEY_ID));
const KEY_MATERIAL_ID: Member = Member::optional("keyMaterialId", Text(&text::KEY_MATERIAL_ID));
const KEY_PAIR_SPEC: Member = Member::required(
    "keyPairSpec",
    Enum(&[
        "RSA_2048",
        "RSA_3072",
        "RSA_4096",
        "ECC_NIST_P256",
        "ECC_NIST_P384",
        "ECC_NIST_P521",
        "ECC_SECG_P256K1",
        "SM2",
        "ECC_NIST_EDWARDS25519",
        "ML_KEM_512",
        "ML_KEM_768",
        "ML_KEM_1024",
    ]),
);
const MESSAGE: Member = Member::required("message", Blob(4096));
const MESSAGE_TYPE: Member =
    Member::optional("messageType", Enum(&["RAW", "DIGEST", "EXTERNAL_MU"]));
/// Whom an answer is encrypted for: a Nitro enclave, with its attestation document.
pub const RECIPIENT: Member = Member::optional("recipient", Structure(RECIPIENT_INFO));
const RECIPIENT_INFO: &[Member] = &[
    Member::optional("keyEncryptionAlgorithm", Enum(&["RSAES_OAEP_SHA_256"])),
    Member::optional("attestationDocument", Blob(262_144)),
];
const SIGNING_ALGORITHM: Member = Member::required(
    "signingAlgorithm",
    Enum(&[
        "RSASSA_PSS_SHA_256",
        "RSASSA_PSS_SHA_384",
        "RSASSA_PSS_SHA_512",
        "RSASSA_PKCS1_V1_5_SHA_256",
        "RSASSA_PKCS1_V1_5_SHA_384",
        "RSASSA_PKCS1_V1_5_SHA_512",
        "ECDSA_SHA_256",
        "ECDSA_SHA_384",
        "ECDSA_SHA_512",
        "SM2DSA",
        "ML_DSA_SHAKE_256",
        "ED25519_SHA_512",
        "ED25519_PH_SHA_512",
    ]),
);

const TAG: &[Member] = &[
    Member::required("tagKey", Text(&text::TAG_KEY)),
    Member::required("tagValue", Text(&text::TAG_VALUE)),
];

const CIPHERTEXT: MemberType = Blob(6144);

const ENCRYPTION_ALGORITHMS: [&str; 4] = [
    "SYMMETRIC_DEFAULT",
    "RSAES_OAEP_SHA_1",
    "RSAES_OAEP_SHA_256",
    "SM2PKE",
];

//! Key specs, MAC algorithms, origins and usages, by KMS's names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The HMAC of RFC 2104 / FIPS 198-1 over one of the SHA-2 hashes (KMS: MacAlgorithmSpec).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MacAlgorithm {
    /// HMAC with SHA-224: 28-byte MACs.
    HmacSha224,
    /// HMAC with SHA-256: 32-byte MACs.
    HmacSha256,
    /// HMAC with SHA-384: 48-byte MACs.
    HmacSha384,
    /// HMAC with SHA-512: 64-byte MACs.
    HmacSha512,
}

impl MacAlgorithm {
    /// In digest order.
    pub const ALL: [Self; 4] = [
        Self::HmacSha224,
        Self::HmacSha256,
        Self::HmacSha384,
        Self::HmacSha512,
    ];

    /// KMS's name, `HMAC_SHA_256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha224 => "HMAC_SHA_224",
            Self::HmacSha256 => "HMAC_SHA_256",
            Self::HmacSha384 => "HMAC_SHA_384",
            Self::HmacSha512 => "HMAC_SHA_512",
        }
    }

    /// The length of a MAC in bytes: always the whole digest, KMS never truncates.
    pub const fn mac_len(self) -> usize {
        self.digest_bits() as usize / 8
    }

    /// The digest's length in bits.
    pub const fn digest_bits(self) -> u32 {
        match self {
            Self::HmacSha224 => 224,
            Self::HmacSha256 => 256,
            Self::HmacSha384 => 384,
            Self::HmacSha512 => 512,
        }
    }

    /// The algorithm whose digest has so many bits.
    pub fn from_digest_bits(bits: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.digest_bits() == bits)
    }
}

impl fmt::Display for MacAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MacAlgorithm {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(())
    }
}

/// A key's length, and with it the one algorithm that it fits (KMS: KeySpec).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeySpec {
    /// For [`MacAlgorithm::HmacSha224`].
    Hmac224,
    /// For [`MacAlgorithm::HmacSha256`].
    Hmac256,
    /// For [`MacAlgorithm::HmacSha384`].
    Hmac384,
    /// For [`MacAlgorithm::HmacSha512`].
    Hmac512,
}

impl KeySpec {
    /// In digest order.
    pub const ALL: [Self; 4] = [Self::Hmac224, Self::Hmac256, Self::Hmac384, Self::Hmac512];

    /// KMS's name, `HMAC_256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hmac224 => "HMAC_224",
            Self::Hmac256 => "HMAC_256",
            Self::Hmac384 => "HMAC_384",
            Self::Hmac512 => "HMAC_512",
        }
    }

    /// The one algorithm that a key of this spec can do.
    pub const fn mac_algorithm(self) -> MacAlgorithm {
        match self {
            Self::Hmac224 => MacAlgorithm::HmacSha224,
            Self::Hmac256 => MacAlgorithm::HmacSha256,
            Self::Hmac384 => MacAlgorithm::HmacSha384,
            Self::Hmac512 => MacAlgorithm::HmacSha512,
        }
    }
}

impl fmt::Display for KeySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeySpec {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|spec| spec.name() == name)
            .ok_or_else(|| {
                format!(
                    "{name:?} is no key spec; there are HMAC_224, HMAC_256, HMAC_384 and HMAC_512"
                )
            })
    }
}

impl From<KeySpec> for String {
    fn from(spec: KeySpec) -> Self {
        spec.name().to_owned()
    }
}

impl TryFrom<String> for KeySpec {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

/// Where a key's material comes from (KMS: OriginType).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Origin {
    /// Generated in the token by hsmac.
    #[serde(rename = "AWS_KMS")]
    AwsKms,
    /// Imported.
    #[serde(rename = "EXTERNAL")]
    External,
    /// Made outside of hsmac, in the token, and mapped: declared keys.
    #[serde(rename = "AWS_CLOUDHSM")]
    AwsCloudHsm,
}

impl Origin {
    /// In KMS's order.
    pub const ALL: [Self; 3] = [Self::AwsKms, Self::External, Self::AwsCloudHsm];

    /// KMS's name, `AWS_KMS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwsKms => "AWS_KMS",
            Self::External => "EXTERNAL",
            Self::AwsCloudHsm => "AWS_CLOUDHSM",
        }
    }
}

/// What a key may be used for (KMS: KeyUsageType): one thing, here.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyUsage {
    /// GenerateMac and VerifyMac.
    GenerateVerifyMac,
}

impl KeyUsage {
    /// All of one.
    pub const ALL: [Self; 1] = [Self::GenerateVerifyMac];

    /// KMS's name, `GENERATE_VERIFY_MAC`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GenerateVerifyMac => "GENERATE_VERIFY_MAC",
        }
    }
}

//! Everybody's test vectors, through the network against the real binary: RFC 4231 and Wycheproof.
//!
//! KMS has no empty messages and no truncated MACs, so a vector with an empty message is VALIDATION
//! and a truncated tag is KMS_INVALID_MAC, even a right one. Empty messages are run through the
//! host's wire instead.

use std::fmt::Write as _;

use hsmac::proto::{
    host::{KeyDefinition, answer::Outcome},
    v1::{
        GenerateMacRequest, MacAlgorithm, VerifyMacRequest, mac_service_client::MacServiceClient,
    },
};
use tonic::{Code, Status, transport::Channel};
use wycheproof::{
    TestResult,
    mac::{Test, TestName, TestSet},
};

use crate::{
    support::{Token, assert_status, declare, hex},
    wire::Host,
};

/// A hash, as far as an HMAC over it needs to be known.
#[derive(Clone, Copy)]
struct Hash {
    bits: u32,
    algorithm: MacAlgorithm,
}

const HASHES: [Hash; 4] = [
    Hash::of(224, MacAlgorithm::HmacSha224),
    Hash::of(256, MacAlgorithm::HmacSha256),
    Hash::of(384, MacAlgorithm::HmacSha384),
    Hash::of(512, MacAlgorithm::HmacSha512),
];

impl Hash {
    const fn of(bits: u32, algorithm: MacAlgorithm) -> Self {
        Self { bits, algorithm }
    }

    const fn tag_len(self) -> usize {
        self.bits as usize / 8
    }
}

/// A token with many keys, each declared.
struct Vault {
    token: Token,
    keys: Vec<Key>,
}

struct Key {
    value: Vec<u8>,
    hash: Hash,
    key_id: String,
    label: String,
}

impl Vault {
    fn new() -> Self {
        Self {
            token: Token::new(),
            keys: Vec::new(),
        }
    }

    /// The key with this value for this hash; a new one if there is none yet.
    fn key(&mut self, value: &[u8], hash: Hash) -> &Key {
        let known = self
            .keys
            .iter()
            .position(|key| key.value == value && key.hash.bits == hash.bits);
        let index = known.unwrap_or_else(|| {
            let index = self.keys.len();
            self.keys.push(Key {
                value: value.to_vec(),
                hash,
                key_id: format!("00000000-0000-4000-8000-{index:012x}"),
                label: format!("vector-{index}"),
            });
            index
        });
        &self.keys[index]
    }

    /// Puts the keys into the token, and gives a configuration that declares them.
    fn fill(&self) -> String {
        let (mut script, mut declared) = (String::new(), String::new());
        for (index, key) in self.keys.iter().enumerate() {
            // Tokens refuse keys that are shorter than the digest; with zeros up to the block
            // length they are the same HMAC (RFC 2104).
            let mut value = key.value.clone();
            value.resize(value.len().max(key.hash.tag_len()), 0);
            writeln!(script, "generic {} {index:04x} {}", key.label, hex(&value)).unwrap();
            declared += &declare(
                &key.key_id,
                &key.label,
                &format!("HMAC_{}", key.hash.bits),
                &format!("alias/{}", key.label),
            );
        }
        self.token.inside(&script);
        self.token.config_with("sessions = 2\n", &declared)
    }
}

/// Both operations over one key.
struct Caller {
    client: MacServiceClient<Channel>,
}

impl Caller {
    async fn make(&mut self, key: &Key, message: &[u8]) -> Result<Vec<u8>, Status> {
        let request = GenerateMacRequest {
            key_id: key.key_id.clone(),
            message: message.to_vec().into(),
            mac_algorithm: key.hash.algorithm.into(),
            ..GenerateMacRequest::default()
        };
        let made = self.client.generate_mac(request).await?.into_inner();
        Ok(made.mac.to_vec())
    }

    async fn verify(&mut self, key: &Key, message: &[u8], mac: &[u8]) -> Result<bool, Status> {
        let request = VerifyMacRequest {
            key_id: key.key_id.clone(),
            message: message.to_vec().into(),
            mac_algorithm: key.hash.algorithm.into(),
            mac: mac.to_vec().into(),
            ..VerifyMacRequest::default()
        };
        Ok(self
            .client
            .verify_mac(request)
            .await?
            .into_inner()
            .mac_valid)
    }

    async fn refuse(&mut self, key: &Key, message: &[u8], mac: &[u8], what: &str) {
        let status = self.verify(key, message, mac).await;
        let status = status.expect_err(what);
        assert_status(&status, Code::InvalidArgument, "KMS_INVALID_MAC", "");
        assert_eq!(status.message(), "", "KMS says nothing more");
    }
}

/// What was done with the vectors of a set.
#[derive(Debug, Default, Eq, PartialEq)]
struct Count {
    made_and_verified: usize,
    truncated_refused: usize,
    forged_refused: usize,
    empty_refused: usize,
    /// The vectors through the host's protocol.
    empty_made_on_the_wire: usize,
    empty_forged_on_the_wire: usize,
}

async fn run_wycheproof(name: TestName, hash: Hash, size: usize, wanted: Count) {
    let set = TestSet::load(name).unwrap();
    assert_eq!(set.number_of_tests, size);
    let tests: Vec<&Test> = set
        .test_groups
        .iter()
        .flat_map(|group| &group.tests)
        .collect();
    let mut vault = Vault::new();
    for test in &tests {
        vault.key(&test.key, hash);
    }
    let config = vault.fill();
    let server = vault.token.serve(&config).await;
    let mut caller = Caller {
        client: server.mac().await,
    };
    let mut host = Host::ready(&vault.token);
    for (index, key) in vault.keys.iter().enumerate() {
        host.define(KeyDefinition {
            reference: index as u64,
            key_id: key.key_id.clone(),
            digest_bits: key.hash.bits,
            label: key.label.clone(),
            ..KeyDefinition::default()
        });
    }

    let mut count = Count::default();
    for test in &tests {
        let what = format!("{name:?} {} {:?}", test.tc_id, test.comment);
        let reference = vault
            .keys
            .iter()
            .position(|key| key.value == test.key[..])
            .unwrap();
        let key = &vault.keys[reference];
        let is_whole = test.tag.len() == hash.tag_len();
        let is_valid = match test.result {
            TestResult::Valid => true,
            TestResult::Invalid => false,
            TestResult::Acceptable => panic!("{what}: no HMAC is merely acceptable"),
        };
        if test.msg.is_empty() {
            let of_message = "1 validation error detected: Value at 'message' failed to satisfy constraint: Member must have length greater than or equal to 1";
            let made = caller.make(key, &test.msg).await.expect_err(&what);
            assert_status(&made, Code::InvalidArgument, "VALIDATION", of_message);
            let verified = caller.verify(key, &test.msg, &test.tag).await;
            let verified = verified.expect_err(&what);
            assert_status(&verified, Code::InvalidArgument, "VALIDATION", of_message);
            count.empty_refused += 1;

            let Outcome::Mac(mac) = host.mac(reference as u64, &test.msg) else {
                panic!("{what}: no MAC on the wire")
            };
            assert_eq!(mac.len(), hash.tag_len());
            assert_eq!(mac.starts_with(&test.tag), is_valid, "{what}");
            if is_valid {
                count.empty_made_on_the_wire += 1;
            } else {
                count.empty_forged_on_the_wire += 1;
            }
            continue;
        }
        let made = caller.make(key, &test.msg).await.unwrap();
        assert_eq!(made.len(), hash.tag_len(), "{what}");
        assert_eq!(made.starts_with(&test.tag), is_valid, "{what}");
        if is_valid && is_whole {
            assert!(caller.verify(key, &test.msg, &test.tag).await.unwrap());
            count.made_and_verified += 1;
            continue;
        }
        caller.refuse(key, &test.msg, &test.tag, &what).await;
        if is_valid {
            count.truncated_refused += 1;
        } else {
            count.forged_refused += 1;
        }
    }
    println!(
        "{name:?}, {size} vectors with {} keys: {count:?}",
        vault.keys.len()
    );
    assert_eq!(count, wanted);
    let classes = [
        count.made_and_verified,
        count.truncated_refused,
        count.forged_refused,
        count.empty_refused,
    ];
    assert_eq!(classes.iter().sum::<usize>(), size);
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn every_wycheproof_vector_of_hmac_sha_224_is_answered_as_kms_would() {
    let wanted = Count {
        made_and_verified: 30,
        truncated_refused: 30,
        forged_refused: 53,
        empty_refused: 59,
        empty_made_on_the_wire: 6,
        empty_forged_on_the_wire: 53,
    };
    run_wycheproof(TestName::HmacSha224, HASHES[0], 172, wanted).await;
}

#[tokio::test]
async fn every_wycheproof_vector_of_hmac_sha_256_is_answered_as_kms_would() {
    run_wycheproof(TestName::HmacSha256, HASHES[1], 174, LARGER_SET).await;
}

#[tokio::test]
async fn every_wycheproof_vector_of_hmac_sha_384_is_answered_as_kms_would() {
    run_wycheproof(TestName::HmacSha384, HASHES[2], 174, LARGER_SET).await;
}

#[tokio::test]
async fn every_wycheproof_vector_of_hmac_sha_512_is_answered_as_kms_would() {
    run_wycheproof(TestName::HmacSha512, HASHES[3], 174, LARGER_SET).await;
}

const LARGER_SET: Count = Count {
    made_and_verified: 30,
    truncated_refused: 30,
    forged_refused: 54,
    empty_refused: 60,
    empty_made_on_the_wire: 6,
    empty_forged_on_the_wire: 54,
};

#[tokio::test]
async fn the_test_cases_of_rfc_4231_are_made_and_verified_and_the_truncated_one_is_refused() {
    let cases = rfc_4231();
    let mut vault = Vault::new();
    for case in &cases {
        for hash in HASHES {
            vault.key(&case.key, hash);
        }
    }
    let config = vault.fill();
    let server = vault.token.serve(&config).await;
    let mut caller = Caller {
        client: server.mac().await,
    };
    let (mut made_and_verified, mut truncated) = (0, 0);
    for case in &cases {
        for (hash, tag) in HASHES.into_iter().zip(case.tags) {
            let tag = unhex(tag);
            let key = vault.key(&case.key, hash);
            let what = format!("test case {} with SHA-{}", case.number, hash.bits);
            let made = caller.make(key, &case.data).await.unwrap();
            assert_eq!(made.len(), hash.tag_len(), "{what}");
            assert!(made.starts_with(&tag), "{what}: {}", hex(&made));
            if case.number == 5 {
                assert_eq!(tag.len(), 16, "128 bits of it");
                caller.refuse(key, &case.data, &tag, &what).await;
                truncated += 1;
            } else {
                assert_eq!(made, tag, "{what}");
                assert!(caller.verify(key, &case.data, &tag).await.unwrap());
                made_and_verified += 1;
            }
        }
    }
    println!("RFC 4231: {made_and_verified} made and verified, {truncated} truncated and refused");
    assert_eq!((made_and_verified, truncated), (24, 4));
}

/// One test case of RFC 4231, section 4, with a tag for each hash.
struct Case {
    number: u32,
    key: Vec<u8>,
    data: Vec<u8>,
    tags: [&'static str; 4],
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn rfc_4231() -> Vec<Case> {
    vec![
        Case {
            number: 1,
            key: vec![0x0b; 20],
            data: b"Hi There".to_vec(),
            tags: [
                "896fb1128abbdf196832107cd49df33f47b4b1169912ba4f53684b22",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ],
        },
        Case {
            number: 2,
            key: b"Jefe".to_vec(),
            data: b"what do ya want for nothing?".to_vec(),
            tags: [
                "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ],
        },
        Case {
            number: 3,
            key: vec![0xaa; 20],
            data: vec![0xdd; 50],
            tags: [
                "7fb3cb3588c6c1f6ffa9694d7d6ad2649365b0c1f65d69d1ec8333ea",
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
                "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
            ],
        },
        Case {
            number: 4,
            key: (0x01..=0x19).collect(),
            data: vec![0xcd; 50],
            tags: [
                "6c11506874013cac6a2abc1bb382627cec6a90d86efc012de7afec5a",
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
                "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e6801dd23c4a7d679ccf8a386c674cffb",
                "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3dba91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd",
            ],
        },
        Case {
            number: 5,
            key: vec![0x0c; 20],
            data: b"Test With Truncation".to_vec(),
            tags: [
                "0e2aea68a90c8d37c988bcdb9fca6fa8",
                "a3b6167473100ee06e0c796c2955552b",
                "3abf34c3503b2a23a46efc619baef897",
                "415fad6271580a531d4179bc891d87a6",
            ],
        },
        Case {
            number: 6,
            key: vec![0xaa; 131],
            data: b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            tags: [
                "95e9a0db962095adaebe9b2d6f0dbce2d499f112f2d2b7273fa6870e",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ],
        },
        Case {
            number: 7,
            key: vec![0xaa; 131],
            data: b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.".to_vec(),
            tags: [
                "3a854166ac5d9f023f54d517d0b39dbd946770db9c2b95c9f6f565d1",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
                "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5a678cc31e799176d3860e6110c46523e",
                "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
            ],
        },
    ]
}

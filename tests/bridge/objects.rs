//! Making and destroying objects, asked of a host over its wire: what may be in the token afterwards.

use hsmac::proto::host::{
    Destroy, FaultClass, Generate, Import, KeyDefinition, KeyFacts, answer::Outcome, job::Work,
};

use crate::{
    support::{KEY, KEY_ID, Token, hex, hmac_sha256},
    wire::{Host, fault, usual_key},
};

/// A CKA_ID as hsmac draws them: 16 bytes.
const ID: [u8; 16] = *b"0123456789abcdef";
const LABEL: &str = "hsmac:key";

/// A key that is not in the token yet, or whose check value is known.
fn definition(reference: u64, digest_bits: u32, check_value: &[u8]) -> KeyDefinition {
    KeyDefinition {
        reference,
        key_id: KEY_ID.into(),
        digest_bits,
        cka_id: ID.to_vec().into(),
        label: LABEL.into(),
        check_value: check_value.to_vec().into(),
    }
}

fn object() -> String {
    format!("{LABEL} {}", hex(&ID))
}

fn generate(host: &mut Host, key: u64) -> Outcome {
    let job = host.job(Work::Generate(Generate { key }));
    host.ask(job)
}

fn import(host: &mut Host, key: u64, material: &[u8]) -> Outcome {
    let job = host.job(Work::Import(Import {
        key,
        material: material.to_vec().into(),
    }));
    host.ask(job)
}

fn destroy(host: &mut Host, key: u64, orphan: bool) -> Outcome {
    let job = host.job(Work::Destroy(Destroy { key, orphan }));
    host.ask(job)
}

fn facts(outcome: Outcome) -> KeyFacts {
    let Outcome::KeyFacts(facts) = outcome else {
        panic!("no facts but {outcome:?}")
    };
    facts
}

fn was_gone(outcome: Outcome) -> bool {
    let Outcome::Destroyed(destroyed) = outcome else {
        panic!("not destroyed but {outcome:?}")
    };
    destroyed.was_gone
}

#[tokio::test]
async fn a_key_of_each_spec_is_made_keeps_its_secret_and_is_destroyed() {
    let token = Token::new();
    let mut host = Host::ready(&token);
    for (reference, digest_bits) in [(1, 224), (2, 256), (3, 384), (4, 512)] {
        host.define(definition(reference, digest_bits, b""));
        let facts = facts(generate(&mut host, reference));
        assert!(facts.sensitive && !facts.extractable);
        assert!(facts.never_extractable && facts.local);
        assert_eq!(facts.check_value.len() * 8, digest_bits as usize);
        assert_eq!(token.objects(), [object()]);

        let Outcome::Mac(made) = host.mac(reference, b"x") else {
            panic!("no MAC")
        };
        assert_eq!(made.len() * 8, digest_bits as usize);
        // Another reference with the same check value is the same key.
        let pinned = reference + 100;
        host.define(definition(pinned, digest_bits, &facts.check_value));
        assert_eq!(host.mac(pinned, b"x"), Outcome::Mac(made));

        assert!(!was_gone(destroy(&mut host, pinned, false)));
        assert_eq!(token.objects(), [""; 0]);
        assert!(was_gone(destroy(&mut host, pinned, false)));
        assert_eq!(
            fault(host.mac(reference, b"x")).class(),
            FaultClass::KeyMissing
        );
    }
}

#[tokio::test]
async fn given_material_becomes_a_key_that_no_longer_shows_it() {
    let token = Token::new();
    let mut host = Host::ready(&token);
    host.define(definition(1, 256, b""));
    let facts = facts(import(&mut host, 1, &KEY));
    assert!(facts.sensitive && !facts.extractable && !facts.local);
    let made = host.mac(1, b"x");
    assert_eq!(made, Outcome::Mac(hmac_sha256(&KEY, b"x").into()));
    let job = host.job(Work::Import(Import {
        key: 1,
        material: b"a secret".to_vec().into(),
    }));
    assert!(!format!("{job:?}").contains("material"), "{job:?}");
}

#[tokio::test]
async fn a_cka_id_that_is_taken_is_refused_and_the_object_left_alone() {
    let token = Token::new();
    token.import("somebody's", &hex(&ID), &KEY);
    let mut host = Host::ready(&token);
    for reference in [1, 2] {
        host.define(definition(reference, 256, b""));
    }
    for refused in [generate(&mut host, 1), import(&mut host, 2, &[7; 32])] {
        let fault = fault(refused);
        assert_eq!(fault.class(), FaultClass::Key);
        assert!(fault.reason.contains("already"), "{fault:?}");
    }
    assert_eq!(
        token.objects(),
        [format!("somebody's {}", hex(&ID))],
        "the token has changed"
    );
}

/// Puts another key in the place of the one of these tests.
fn swap(token: &Token) {
    let id = hex(&ID);
    token.inside(&format!(
        "destroy {LABEL}\ngeneric {LABEL} {id} {}\n",
        hex(&KEY)
    ));
}

#[tokio::test]
async fn an_object_that_was_swapped_is_never_destroyed() {
    let token = Token::new();
    let mut host = Host::ready(&token);
    host.define(definition(1, 256, b""));
    let facts = facts(generate(&mut host, 1));
    swap(&token);
    // Neither by the host that knew the old object, nor by one that never saw it.
    let mut fresh = Host::ready(&token);
    fresh.define(definition(1, 256, &facts.check_value));
    for host in [&mut host, &mut fresh] {
        let fault = fault(destroy(host, 1, false));
        assert_eq!(fault.class(), FaultClass::KeyDiffers);
        assert!(fault.reason.contains("check value differs"), "{fault:?}");
    }
    assert_eq!(token.objects(), [object()]);
}

#[tokio::test]
async fn of_two_objects_with_one_name_none_is_destroyed() {
    let token = Token::new();
    let check_value = hmac_sha256(
        &KEY,
        format!("\0hsmac-reserved\0key check v1\0{KEY_ID}").as_bytes(),
    );
    for _ in 0..2 {
        token.import(LABEL, &hex(&ID), &KEY);
    }
    let mut host = Host::ready(&token);
    host.define(definition(1, 256, &check_value));
    for orphan in [false, true] {
        let fault = fault(destroy(&mut host, 1, orphan));
        assert_eq!(fault.class(), FaultClass::Key);
        assert!(fault.reason.contains("several objects"), "{fault:?}");
    }
    assert_eq!(token.objects(), [object(), object()]);
}

#[tokio::test]
async fn an_orphan_goes_by_its_random_id_and_label_and_by_nothing_less() {
    let token = Token::new();
    token.import(LABEL, &hex(&ID), &KEY);
    token.import(LABEL, "01", &KEY);
    let mut host = Host::ready(&token);
    // Without a check value, without a label, with a CKA_ID that somebody else may have chosen.
    host.define(definition(1, 256, b""));
    host.define(KeyDefinition {
        label: String::new(),
        ..definition(2, 256, b"")
    });
    host.define(KeyDefinition {
        cka_id: vec![1].into(),
        ..definition(3, 256, b"")
    });
    for (reference, orphan) in [(1, false), (2, true), (3, true)] {
        let fault = fault(destroy(&mut host, reference, orphan));
        assert_eq!(fault.class(), FaultClass::Key, "{fault:?}");
    }
    assert_eq!(token.objects().len(), 2);
    assert!(!was_gone(destroy(&mut host, 1, true)));
    assert_eq!(token.objects(), [format!("{LABEL} 01")]);
    assert!(was_gone(destroy(&mut host, 1, true)));
}

#[tokio::test]
async fn a_token_that_refuses_one_template_is_asked_with_the_next_and_that_is_remembered() {
    let token = Token::new();
    let mut host = Host::faulty(&token);
    for reference in 1..=3 {
        host.define(KeyDefinition {
            cka_id: [reference; 16].to_vec().into(),
            ..definition(reference.into(), 256, b"")
        });
    }
    // Generic secrets are refused twice, with all attributes and with few.
    token.rules(
        "return C_CreateObject CKR_TEMPLATE_INCONSISTENT once a\n\
         return C_CreateObject CKR_ATTRIBUTE_VALUE_INVALID once b\n\
         return C_GenerateKey CKR_TEMPLATE_INCONSISTENT once c",
    );
    facts(import(&mut host, 1, &KEY));
    let made = host.mac(1, b"x");
    assert_eq!(made, Outcome::Mac(hmac_sha256(&KEY, b"x").into()));
    facts(import(&mut host, 2, &KEY));
    facts(generate(&mut host, 3));
    let log = std::fs::read_to_string(token.path("fault.log")).unwrap();
    let asked = |function: &str| log.lines().filter(|line| line.contains(function)).count();
    assert_eq!(asked(" C_CreateObject "), 3 + 1);
    assert_eq!(asked(" C_GenerateKey "), 2);
    assert_eq!(token.objects().len(), 3);
}

#[tokio::test]
async fn a_token_that_cannot_is_named_and_nothing_stays_in_it() {
    let token = Token::new();
    let mut host = Host::faulty(&token);
    for (reference, rules, words) in [
        (
            1,
            "return C_GenerateKey CKR_TEMPLATE_INCONSISTENT",
            "makes no key for HMAC_SHA_256",
        ),
        // It makes keys and does not sign with them.
        (
            2,
            "return C_Sign CKR_KEY_FUNCTION_NOT_PERMITTED",
            "CKR_KEY_FUNCTION_NOT_PERMITTED",
        ),
        // It does not say that the key is sensitive.
        (
            3,
            "return C_GetAttributeValue CKR_ATTRIBUTE_TYPE_INVALID",
            "did not honour",
        ),
    ] {
        host.define(definition(reference, 256, b""));
        token.rules(rules);
        let fault = fault(generate(&mut host, reference));
        assert_eq!(fault.class(), FaultClass::Unsupported, "{fault:?}");
        assert!(fault.reason.contains(words), "{fault:?}");
        assert_eq!(token.objects(), [""; 0]);
    }
    token.rules("return C_OpenSession CKR_TOKEN_WRITE_PROTECTED");
    host.define(definition(4, 256, b""));
    let fault = fault(generate(&mut host, 4));
    assert_eq!(fault.class(), FaultClass::Unsupported);
    assert_eq!(fault.code, "CKR_TOKEN_WRITE_PROTECTED");
}

#[tokio::test]
async fn a_creation_or_destruction_that_failed_halfway_is_said_to_be_unsettled() {
    let token = Token::new();
    let mut host = Host::faulty(&token);
    host.define(definition(1, 256, b""));
    token.rules("return C_GenerateKey CKR_DEVICE_ERROR");
    let Outcome::Unsettled(fault) = generate(&mut host, 1) else {
        panic!("settled")
    };
    assert_eq!(fault.code, "CKR_DEVICE_ERROR");

    // Made, cannot serve, and cannot be destroyed either: it is still in the token, which is said.
    token.rules(
        "return C_Sign CKR_KEY_FUNCTION_NOT_PERMITTED\nreturn C_DestroyObject CKR_FUNCTION_FAILED",
    );
    let Outcome::Unsettled(fault) = generate(&mut host, 1) else {
        panic!("settled")
    };
    assert!(fault.reason.contains("cannot be destroyed"), "{fault:?}");
    assert_eq!(token.objects(), [object()]);
    let Outcome::Unsettled(_) = destroy(&mut host, 1, true) else {
        panic!("settled")
    };
    token.rules("");
    assert!(!was_gone(destroy(&mut host, 1, true)));
    assert_eq!(token.objects(), [""; 0]);
}

#[tokio::test]
async fn after_a_creation_or_destruction_open_keys_are_proved_again() {
    let token = Token::with_key();
    let mut host = Host::faulty(&token);
    host.define(usual_key(9));
    let signed = |host: &mut Host| {
        let log = || std::fs::read_to_string(token.path("fault.log")).unwrap();
        let signs = |log: String| log.lines().filter(|line| line.contains(" C_Sign ")).count();
        let before = signs(log());
        let made = host.mac(9, b"x");
        assert_eq!(made, Outcome::Mac(hmac_sha256(&KEY, b"x").into()));
        signs(log()) - before
    };
    signed(&mut host);
    assert_eq!(signed(&mut host), 1);
    host.define(definition(1, 256, b""));
    facts(generate(&mut host, 1));
    assert_eq!(signed(&mut host), 2, "a proof and a MAC");
    assert_eq!(signed(&mut host), 1);
    assert!(!was_gone(destroy(&mut host, 1, false)));
    assert_eq!(signed(&mut host), 2, "a proof and a MAC");
}

//! Every operation, asked by callers with every kind of right.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::*;
use crate::{error::Kind, kms::tests::rights::judged};

const ACCOUNT: &str = "111122223333";
const STRANGER: &str = "444455556666";
const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/a234abcd-12ab-34cd-56ef-1234567890ab";

/// A request for the key by its ARN, good enough to come as far as rights.
fn body(operation: Operation) -> String {
    let more = match operation {
        Operation::GenerateMac => r#","Message":"aGk=","MacAlgorithm":"HMAC_SHA_256""#,
        Operation::VerifyMac => r#","Message":"aGk=","Mac":"aGk=","MacAlgorithm":"HMAC_SHA_256""#,
        Operation::GenerateRandom => r#","NumberOfBytes":8"#,
        Operation::CreateKey => r#","KeySpec":"HMAC_256","KeyUsage":"GENERATE_VERIFY_MAC""#,
        Operation::UpdateKeyDescription => r#","Description":"d""#,
        Operation::CreateAlias => r#","AliasName":"alias/new""#,
        Operation::TagResource => r#","Tags":[{"TagKey":"k","TagValue":"v"}]"#,
        Operation::UntagResource => r#","TagKeys":["k"]"#,
        Operation::PutKeyPolicy => {
            r#","BypassPolicyLockoutSafetyCheck":true,"Policy":"{\"Statement\":[]}""#
        }
        Operation::Foreign(Foreign::ReEncrypt) => {
            return format!(r#"{{"SourceKeyId":"{KEY}"}}"#);
        }
        Operation::CancelKeyDeletion
        | Operation::DeleteAlias
        | Operation::DescribeKey
        | Operation::DisableKey
        | Operation::DisableKeyRotation
        | Operation::EnableKey
        | Operation::EnableKeyRotation
        | Operation::GetKeyLastUsage
        | Operation::GetKeyPolicy
        | Operation::GetKeyRotationStatus
        | Operation::ListAliases
        | Operation::ListKeyPolicies
        | Operation::ListKeyRotations
        | Operation::ListKeys
        | Operation::ListResourceTags
        | Operation::RotateKeyOnDemand
        | Operation::ScheduleKeyDeletion
        | Operation::UpdateAlias
        | Operation::Foreign(_) => "",
    };
    format!(r#"{{"KeyId":"{KEY}","TargetKeyId":"{KEY}"{more}}}"#)
}

async fn is_denied(kms: &Arc<Kms>, account: &str, operation: Operation) -> bool {
    let caller = Caller::parse(&format!("arn:aws:iam::{account}:user/billing")).unwrap();
    let call = Call {
        kms,
        caller: &caller,
        asked: Members::parse(body(operation).as_bytes()).unwrap(),
        until: Instant::now() + Duration::from_secs(10),
    };
    match call.answer(operation).await {
        Ok(_) => false,
        Err(error) => error.kind() == Kind::AccessDenied,
    }
}

/// What an operation is about, which is what decides whose word counts.
#[derive(Clone, Copy, PartialEq)]
enum About {
    Key,
    /// The same, and callers of other accounts may be let in.
    KeyOfAnyAccount,
    AliasAndKey,
    Account,
}

fn about(operation: Operation) -> About {
    let of_account = [
        Operation::CreateKey,
        Operation::GenerateRandom,
        Operation::ListKeys,
    ];
    if of_account.contains(&operation) {
        About::Account
    } else if operation == Operation::CreateAlias {
        About::AliasAndKey
    } else if operation.crosses_accounts() {
        About::KeyOfAnyAccount
    } else {
        About::Key
    }
}

const MAY: &str = r#"{"Effect":"Allow","Action":"kms:*","Resource":"*"}"#;
const MUST_NOT: &str = r#"[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"kms:*","Resource":"*"}]"#;
const LETS_USER: &str = r#"{"Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/billing"},"Action":"kms:*","Resource":"*"}]}"#;
const DENIES_USER: &str = r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"},{"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::111122223333:user/billing"},"Action":"kms:*","Resource":"*"}]}"#;
const LETS_STRANGER: &str = r#"{"Statement":[{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"kms:*","Resource":"*"}]}"#;

#[tokio::test]
async fn every_operation_by_every_kind_of_right() {
    use About::{Account, AliasAndKey, Key, KeyOfAnyAccount};
    type Wanted = fn(About) -> bool;
    /// Name; the key's policy; the caller's account and own policy; what it may.
    type Row<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, Wanted);
    let rows: [Row<'_>; 10] = [
        ("no rights", "", ACCOUNT, None, |_| false),
        ("own policy", "", ACCOUNT, Some(MAY), |_| true),
        ("key policy", LETS_USER, ACCOUNT, None, |about| {
            matches!(about, Key | KeyOfAnyAccount)
        }),
        ("both", LETS_USER, ACCOUNT, Some(MAY), |_| true),
        ("own deny", LETS_USER, ACCOUNT, Some(MUST_NOT), |_| false),
        ("key deny", DENIES_USER, ACCOUNT, Some(MAY), |about| {
            about == Account
        }),
        (
            "key for others",
            LETS_STRANGER,
            ACCOUNT,
            Some(MAY),
            |about| about == Account,
        ),
        ("stranger, own", "", STRANGER, Some(MAY), |about| {
            about == Account
        }),
        ("stranger, key", LETS_STRANGER, STRANGER, None, |_| false),
        (
            "stranger, both",
            LETS_STRANGER,
            STRANGER,
            Some(MAY),
            |about| matches!(about, Account | KeyOfAnyAccount),
        ),
    ];
    let mut table = String::new();
    let mut wrong = Vec::new();
    for operation in Operation::ALL {
        // They begin with the alias, which none of these accounts has.
        if matches!(operation, Operation::UpdateAlias | Operation::DeleteAlias) {
            continue;
        }
        write!(table, "{:38}", operation.name()).unwrap();
        for (name, key, account, own, wanted) in rows {
            // A fresh key each time: some operations end what the next would ask for.
            let principals: Vec<_> = own.map(|own| (account, own)).into_iter().collect();
            let kms = judged(key, &principals).await;
            let denied = is_denied(&kms, account, operation).await;
            write!(table, " {}", if denied { "-" } else { "+" }).unwrap();
            // A foreign alias's account is not the caller's, and the key is not its own.
            let about = about(operation);
            let wanted = wanted(about) && !(about == AliasAndKey && account == STRANGER);
            if denied == wanted {
                wrong.push(format!("{} with {name}", operation.name()));
            }
        }
        table.push('\n');
    }
    let names: Vec<_> = rows.iter().map(|(name, ..)| *name).collect();
    println!("{}: {}\n{table}", Operation::ALL.len(), names.join(", "));
    assert!(wrong.is_empty(), "{wrong:?}\n{table}");
}

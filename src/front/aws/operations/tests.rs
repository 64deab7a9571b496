//! Every operation, asked by callers with every kind of right.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use self::matrix::Right;
use super::*;
use crate::{
    error::Kind,
    kms::{Member, MemberType, testing::authorization::judged},
    model::UnsupportedOperation,
};

#[path = "../../../../tests/support/rights.rs"]
mod matrix;

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
        Operation::ListRetirableGrants => r#","RetiringPrincipal":"p""#,
        Operation::CreateGrant => r#","GranteePrincipal":"p","Operations":["GenerateMac"]"#,
        Operation::RetireGrant | Operation::RevokeGrant => return grant_body(),
        Operation::Unsupported(operation) => return foreign_body(operation),
        Operation::CancelKeyDeletion
        | Operation::DeleteAlias
        | Operation::DescribeCustomKeyStores
        | Operation::DescribeKey
        | Operation::DisableKey
        | Operation::DisableKeyRotation
        | Operation::EnableKey
        | Operation::EnableKeyRotation
        | Operation::GetKeyLastUsage
        | Operation::GetKeyPolicy
        | Operation::GetKeyRotationStatus
        | Operation::ListAliases
        | Operation::ListGrants
        | Operation::ListKeyPolicies
        | Operation::ListKeyRotations
        | Operation::ListKeys
        | Operation::ListResourceTags
        | Operation::RotateKeyOnDemand
        | Operation::ScheduleKeyDeletion
        | Operation::UpdateAlias => "",
    };
    format!(r#"{{"KeyId":"{KEY}","TargetKeyId":"{KEY}"{more}}}"#)
}

/// The ID of the grant that there is.
fn grant_body() -> String {
    format!(r#"{{"KeyId":"{KEY}","GrantId":"{}"}}"#, "07".repeat(32))
}

/// A request whose constraints hold, made from what they are.
fn foreign_body(operation: UnsupportedOperation) -> String {
    let value = |member: &Member| {
        Some(match (&member.of, member.name) {
            (_, "keyId" | "sourceKeyId") => KEY.into(),
            (MemberType::Blob(_), _) => "aGk=".into(),
            (MemberType::Enum(names), _) => names[0].into(),
            (MemberType::List(MemberType::Enum(names), ..), _) => vec![names[0]].into(),
            (MemberType::Text(_), "destinationKeyId") => KEY.into(),
            (MemberType::Text(_), "primaryRegion" | "replicaRegion") => "us-east-1".into(),
            _ => return None,
        })
    };
    let members = operation.members().iter();
    let members = members.filter_map(|member| {
        let name = member.name[..1].to_uppercase() + &member.name[1..];
        Some((name, value(member)?))
    });
    serde_json::Value::Object(members.collect()).to_string()
}

async fn is_denied(kms: &Arc<Kms>, caller: &str, operation: Operation) -> bool {
    let caller = Caller::parse(caller).unwrap();
    let call = Call {
        kms,
        caller: &caller,
        members: Members::parse(body(operation).as_bytes()).unwrap(),
        until: Instant::now() + Duration::from_secs(10),
    };
    match call.answer(operation).await {
        Ok(_) => false,
        Err(error) => error.kind() == Kind::AccessDenied,
    }
}

#[tokio::test]
async fn every_operation_by_every_kind_of_right() {
    let mut table = String::new();
    let mut wrong = Vec::new();
    for operation in Operation::ALL {
        // They begin with the alias, which none of these accounts has.
        if matches!(operation, Operation::UpdateAlias | Operation::DeleteAlias) {
            continue;
        }
        write!(table, "{:38}", operation.name()).unwrap();
        for right in Right::ALL {
            // A fresh key each time: some operations end what the next would ask for.
            let account = right.account();
            let caller = format!("arn:aws:iam::{account}:user/billing");
            let key = format!(r#"{{"Statement":[{}]}}"#, right.key(&caller));
            let own = right.identity().map(|own| format!("[{own}]"));
            let principals: Vec<_> = own.iter().map(|own| (account, &**own)).collect();
            let kms = judged(&key, &principals).await;
            let denied = is_denied(&kms, &caller, operation).await;
            write!(table, " {}", if denied { "-" } else { "+" }).unwrap();
            if denied == right.lets(operation.name()) {
                wrong.push(format!("{} with {}", operation.name(), right.name()));
            }
        }
        table.push('\n');
    }
    let names: Vec<_> = Right::ALL.iter().map(|right| right.name()).collect();
    println!("{}: {}\n{table}", Operation::ALL.len(), names.join(", "));
    assert!(wrong.is_empty(), "{wrong:?}\n{table}");
}

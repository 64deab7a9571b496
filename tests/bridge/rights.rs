//! Every unary operation over gRPC and TLS, asked by callers with every kind of proof and right, and
//! every answer compared with what it must be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use hsmac::proto::v1::{
    CancelKeyDeletionRequest, CreateAliasRequest, CreateGrantRequest, CreateKeyRequest,
    DeleteAliasRequest, DescribeKeyRequest, DisableKeyRequest, DisableKeyRotationRequest,
    EnableKeyRequest, EnableKeyRotationRequest, FILE_DESCRIPTOR_SET, GenerateMacRequest,
    GenerateRandomRequest, GetKeyLastUsageRequest, GetKeyPolicyRequest,
    GetKeyRotationStatusRequest, KeySpec, KeyUsage, ListAliasesRequest, ListGrantsRequest,
    ListKeyPoliciesRequest, ListKeyRotationsRequest, ListKeysRequest, ListResourceTagsRequest,
    ListRetirableGrantsRequest, MacAlgorithm, PutKeyPolicyRequest, RetireGrantRequest,
    RevokeGrantRequest, RotateKeyOnDemandRequest, ScheduleKeyDeletionRequest, Tag,
    TagResourceRequest, UntagResourceRequest, UpdateAliasRequest, UpdateKeyDescriptionRequest,
    VerifyMacRequest, key_service_client::KeyServiceClient, mac_service_client::MacServiceClient,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status, transport::Channel};

use crate::support::{
    Token, assert_status,
    pki::client,
    rights::{About, Right, STRANGER, about},
    tls::{Place, principal},
};

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum Column {
    /// Without a certificate.
    NoProof,
    /// With a good certificate that is no principal's.
    Nobody,
    A(Right),
}

impl Column {
    fn all() -> impl Iterator<Item = Self> {
        let rights = Right::ALL.into_iter().map(Self::A);
        [Self::NoProof, Self::Nobody].into_iter().chain(rights)
    }

    fn name(self) -> &'static str {
        match self {
            Self::NoProof => "no proof",
            Self::Nobody => "wrong certificate",
            Self::A(right) => right.name(),
        }
    }

    /// What an operation must answer: `ok`, or the reason of the error.
    fn answer(self, operation: &str) -> &'static str {
        match self {
            Self::NoProof => "MISSING_AUTHENTICATION_TOKEN",
            Self::Nobody => "UNRECOGNIZED_CLIENT",
            // An alias that is there is named by its name alone, which is one of the caller's account,
            // where it may do what it likes, and where there is no such alias.
            Self::A(right @ (Right::StrangerIdentity | Right::StrangerBoth))
                if matches!(operation, "DeleteAlias" | "UpdateAlias") =>
            {
                assert_eq!(right.account(), STRANGER);
                "NOT_FOUND"
            }
            Self::A(right) if right.lets(operation) => match operation {
                // What no HMAC key can do: a caller without rights does not learn that either.
                "EnableKeyRotation" | "RotateKeyOnDemand" => "UNSUPPORTED_OPERATION",
                _ => "ok",
            },
            Self::A(_) => "ACCESS_DENIED",
        }
    }
}

#[tokio::test]
async fn every_unary_operation_by_every_kind_of_proof_and_right() {
    let place = Place::new(Token::new());
    let mut principals = principal(ADMIN, "admin", Some("caller.json"));
    for (number, right) in Right::ALL.into_iter().enumerate() {
        let file = format!("own-{number}.json");
        if let Some(own) = right.identity() {
            let policy = format!(r#"{{"Statement":[{own}]}}"#);
            fs::write(place.token.path(&file), policy).unwrap();
        }
        let policy = right.identity().map(|_| &*file);
        principals += &principal(&arn(right), &format!("caller-{number}"), policy);
    }
    let config = place.config("", &(principals + &place.token.store()));
    let running = place.serve(&config).await;
    let shown = |name: &str| client().dns(name).signed_by(&place.clients);
    let admin = Asker(
        running
            .client(Some(&shown("admin")))
            .channel()
            .await
            .unwrap(),
    );
    let mut askers = Vec::new();
    for column in Column::all() {
        let certificate = match column {
            Column::NoProof => None,
            Column::Nobody => Some(shown("nobody")),
            Column::A(right) => {
                let number = Right::ALL.iter().position(|one| *one == right).unwrap();
                Some(shown(&format!("caller-{number}")))
            }
        };
        let channel = running.client(certificate.as_ref()).channel().await;
        askers.push((column, Asker(channel.unwrap())));
    }

    let mut cells = BTreeMap::new();
    let mut wrong = Vec::new();
    let operations = unary_operations();
    assert_eq!(operations.len(), 32, "{operations:?}");
    for operation in &operations {
        for (at, (column, asker)) in askers.iter().enumerate() {
            let key = Key::prepare(&admin, operation, *column).await;
            let wanted = column.answer(operation);
            let got = match asker.ask(operation, &key).await {
                Ok(()) => "ok".to_owned(),
                Err(status) => refusal(&status, operation, *column),
            };
            if got != wanted {
                wrong.push(format!(
                    "{operation} with {}: {got}, not {wanted}",
                    column.name()
                ));
            }
            cells.insert((operation.clone(), at), got);
        }
    }
    let table = table(&operations, &cells);
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong:#?}\n{table}");
    // Nobody is let in who is not counted above, and none of it was a fault of ours.
    assert!(!running.server.log().contains("panicked"));
}

/// The reason of an error, which must come with its code and, if it is about rights, in KMS's words.
fn refusal(status: &Status, operation: &str, column: Column) -> String {
    let (code, reason, says) = match (column, status.code()) {
        (Column::NoProof, _) => (
            Code::Unauthenticated,
            "MISSING_AUTHENTICATION_TOKEN",
            String::new(),
        ),
        (Column::Nobody, _) => (Code::Unauthenticated, "UNRECOGNIZED_CLIENT", String::new()),
        (Column::A(right), Code::PermissionDenied) => (
            Code::PermissionDenied,
            "ACCESS_DENIED",
            format!(
                "User: {} is not authorized to perform: kms:{operation} on ",
                arn(right)
            ),
        ),
        // For the table.
        (Column::A(_), _) => {
            return crate::support::said(status)
                .split([' ', ':'])
                .nth(1)
                .unwrap()
                .to_owned();
        }
    };
    assert_status(status, code, reason, &says);
    reason.to_owned()
}

const ADMIN: &str = "arn:aws:iam::111122223333:user/admin";

fn arn(right: Right) -> String {
    let number = Right::ALL.iter().position(|one| *one == right).unwrap();
    format!("arn:aws:iam::{}:user/caller-{number}", right.account())
}

/// The names of all operations that are not streams.
fn unary_operations() -> Vec<String> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
    let methods = files
        .iter()
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method)
        .filter(|method| !method.client_streaming() && !method.server_streaming());
    let names: BTreeSet<String> = methods.map(|method| method.name().to_owned()).collect();
    names.into_iter().collect()
}

/// A line for each operation: `+` done, `-` denied, `?` what it names is not there, `x` no proof.
fn table(operations: &[String], cells: &BTreeMap<(String, usize), String>) -> String {
    let mut table = String::new();
    for (at, column) in Column::all().enumerate() {
        writeln!(table, "{:>26}{} {}", "", "| ".repeat(at), column.name()).unwrap();
    }
    for operation in operations {
        write!(table, "{operation:26}").unwrap();
        for at in 0..Column::all().count() {
            let sign = match &*cells[&(operation.clone(), at)] {
                "ok" => "+",
                "ACCESS_DENIED" => "-",
                "NOT_FOUND" => "?",
                "MISSING_AUTHENTICATION_TOKEN" | "UNRECOGNIZED_CLIENT" => "x",
                other => other,
            };
            write!(table, "{sign} ").unwrap();
        }
        table.push('\n');
    }
    table
}

/// What an operation is asked about: of its own for each question, since some end what the next one
/// would need.
struct Key {
    arn: String,
    alias: String,
    mac: bytes::Bytes,
    /// One that the key's account has made, to its admin.
    grant: String,
    /// Who asks.
    caller: String,
}

impl Key {
    async fn prepare(admin: &Asker, operation: &str, column: Column) -> Self {
        let right = match column {
            // Whoever is nobody is refused before its key is looked for.
            Column::NoProof | Column::Nobody => return Self::none(ADMIN),
            Column::A(right) if about(operation) == About::Account => {
                return Self::none(&arn(right));
            }
            Column::A(right) => right,
        };
        let policy = format!(
            r#"{{"Statement":[{{"Effect":"Allow","Principal":{{"AWS":"{ADMIN}"}},"Action":"kms:*","Resource":"*"}},{}]}}"#,
            right.key(&arn(right))
        );
        let request = CreateKeyRequest {
            policy: Some(policy),
            ..create()
        };
        let made = admin.keys().create_key(request).await.unwrap();
        let made = made.into_inner().key_metadata.unwrap();
        let mut key = Self {
            arn: made.arn,
            alias: format!("alias/{}", made.key_id),
            mac: bytes::Bytes::from_static(b"none"),
            grant: String::new(),
            caller: arn(right),
        };
        // What the operation needs besides, to be done when it is allowed.
        match operation {
            "DeleteAlias" | "UpdateAlias" => admin.ask("CreateAlias", &key).await.unwrap(),
            "CancelKeyDeletion" => admin.ask("ScheduleKeyDeletion", &key).await.unwrap(),
            "RetireGrant" | "RevokeGrant" => {
                let made = admin.keys().create_grant(key.grant_request(ADMIN)).await;
                key.grant = made.unwrap().into_inner().grant_id;
            }
            "VerifyMac" => {
                let made = admin.macs().generate_mac(key.mac_request()).await.unwrap();
                key.mac = made.into_inner().mac;
            }
            _ => {}
        }
        key
    }

    fn none(caller: &str) -> Self {
        let nobody = "arn:aws:kms:us-west-2:111122223333:key/99999999-9999-4999-8999-999999999999";
        Self {
            arn: nobody.into(),
            alias: "alias/none".into(),
            mac: bytes::Bytes::from_static(b"none"),
            grant: String::new(),
            caller: caller.to_owned(),
        }
    }

    fn grant_request(&self, grantee: &str) -> CreateGrantRequest {
        CreateGrantRequest {
            key_id: self.arn.clone(),
            grantee_principal: Some(grantee.to_owned()),
            operations: vec!["GenerateMac".into()],
            ..Default::default()
        }
    }

    fn mac_request(&self) -> GenerateMacRequest {
        GenerateMacRequest {
            key_id: self.arn.clone(),
            message: bytes::Bytes::from_static(b"hi"),
            mac_algorithm: MacAlgorithm::HmacSha256.into(),
            ..Default::default()
        }
    }
}

fn create() -> CreateKeyRequest {
    CreateKeyRequest {
        key_usage: KeyUsage::GenerateVerifyMac.into(),
        key_spec: KeySpec::Hmac256.into(),
        bypass_policy_lockout_safety_check: true,
        ..Default::default()
    }
}

/// Somebody on one connection.
struct Asker(Channel);

impl Asker {
    fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.0.clone())
    }

    fn macs(&self) -> MacServiceClient<Channel> {
        MacServiceClient::new(self.0.clone())
    }

    /// Asks for an operation, about the key wherever it can be.
    async fn ask(&self, operation: &str, key: &Key) -> Result<(), Status> {
        let key_id = key.arn.clone();
        let (mut keys, mut macs) = (self.keys(), self.macs());
        match operation {
            "CancelKeyDeletion" => {
                let request = CancelKeyDeletionRequest { key_id };
                keys.cancel_key_deletion(request).await.map(drop)
            }
            "CreateAlias" => {
                let request = CreateAliasRequest {
                    alias_name: key.alias.clone(),
                    target_key_id: key_id,
                };
                keys.create_alias(request).await.map(drop)
            }
            "CreateKey" => keys.create_key(create()).await.map(drop),
            "CreateGrant" => keys
                .create_grant(key.grant_request(&key.caller))
                .await
                .map(drop),
            "ListGrants" => {
                let request = ListGrantsRequest {
                    key_id,
                    ..Default::default()
                };
                keys.list_grants(request).await.map(drop)
            }
            "ListRetirableGrants" => {
                let request = ListRetirableGrantsRequest {
                    retiring_principal: Some(key.caller.clone()),
                    ..Default::default()
                };
                keys.list_retirable_grants(request).await.map(drop)
            }
            "RetireGrant" => {
                let request = RetireGrantRequest {
                    key_id: Some(key_id),
                    grant_id: Some(key.grant.clone()),
                    ..Default::default()
                };
                keys.retire_grant(request).await.map(drop)
            }
            "RevokeGrant" => {
                let request = RevokeGrantRequest {
                    key_id,
                    grant_id: key.grant.clone(),
                    dry_run: false,
                };
                keys.revoke_grant(request).await.map(drop)
            }
            "DeleteAlias" => {
                let alias_name = key.alias.clone();
                keys.delete_alias(DeleteAliasRequest { alias_name })
                    .await
                    .map(drop)
            }
            "DescribeKey" => {
                let request = DescribeKeyRequest {
                    key_id,
                    ..Default::default()
                };
                keys.describe_key(request).await.map(drop)
            }
            "DisableKey" => keys
                .disable_key(DisableKeyRequest { key_id })
                .await
                .map(drop),
            "EnableKey" => keys.enable_key(EnableKeyRequest { key_id }).await.map(drop),
            "GenerateMac" => macs.generate_mac(key.mac_request()).await.map(drop),
            "GenerateRandom" => {
                let request = GenerateRandomRequest {
                    number_of_bytes: Some(8),
                };
                macs.generate_random(request).await.map(drop)
            }
            "GetKeyLastUsage" => {
                let request = GetKeyLastUsageRequest { key_id };
                keys.get_key_last_usage(request).await.map(drop)
            }
            "GetKeyPolicy" => {
                let request = GetKeyPolicyRequest {
                    key_id,
                    policy_name: None,
                };
                keys.get_key_policy(request).await.map(drop)
            }
            "ListAliases" => {
                let request = ListAliasesRequest {
                    key_id: Some(key_id),
                    ..Default::default()
                };
                keys.list_aliases(request).await.map(drop)
            }
            "ListKeyPolicies" => {
                let request = ListKeyPoliciesRequest {
                    key_id,
                    ..Default::default()
                };
                keys.list_key_policies(request).await.map(drop)
            }
            "ListKeys" => keys.list_keys(ListKeysRequest::default()).await.map(drop),
            "ListResourceTags" => {
                let request = ListResourceTagsRequest {
                    key_id,
                    ..Default::default()
                };
                keys.list_resource_tags(request).await.map(drop)
            }
            "GetKeyRotationStatus" => {
                let request = GetKeyRotationStatusRequest { key_id };
                keys.get_key_rotation_status(request).await.map(drop)
            }
            "ListKeyRotations" => {
                let request = ListKeyRotationsRequest {
                    key_id,
                    ..Default::default()
                };
                keys.list_key_rotations(request).await.map(drop)
            }
            "EnableKeyRotation" => {
                let request = EnableKeyRotationRequest {
                    key_id,
                    rotation_period_in_days: None,
                };
                keys.enable_key_rotation(request).await.map(drop)
            }
            "DisableKeyRotation" => {
                let request = DisableKeyRotationRequest { key_id };
                keys.disable_key_rotation(request).await.map(drop)
            }
            "RotateKeyOnDemand" => {
                let request = RotateKeyOnDemandRequest { key_id };
                keys.rotate_key_on_demand(request).await.map(drop)
            }
            "PutKeyPolicy" => {
                let request = PutKeyPolicyRequest {
                    key_id,
                    policy: Some(r#"{"Statement":[]}"#.into()),
                    bypass_policy_lockout_safety_check: true,
                    ..Default::default()
                };
                keys.put_key_policy(request).await.map(drop)
            }
            "ScheduleKeyDeletion" => {
                let request = ScheduleKeyDeletionRequest {
                    key_id,
                    pending_window_in_days: Some(7),
                };
                keys.schedule_key_deletion(request).await.map(drop)
            }
            "TagResource" => {
                let tag = Tag {
                    tag_key: "k".into(),
                    tag_value: "v".into(),
                };
                let request = TagResourceRequest {
                    key_id,
                    tags: vec![tag],
                };
                keys.tag_resource(request).await.map(drop)
            }
            "UntagResource" => {
                let request = UntagResourceRequest {
                    key_id,
                    tag_keys: vec!["k".into()],
                };
                keys.untag_resource(request).await.map(drop)
            }
            "UpdateAlias" => {
                let request = UpdateAliasRequest {
                    alias_name: key.alias.clone(),
                    target_key_id: key_id,
                };
                keys.update_alias(request).await.map(drop)
            }
            "UpdateKeyDescription" => {
                let request = UpdateKeyDescriptionRequest {
                    key_id,
                    description: "d".into(),
                };
                keys.update_key_description(request).await.map(drop)
            }
            "VerifyMac" => {
                let request = VerifyMacRequest {
                    key_id,
                    message: bytes::Bytes::from_static(b"hi"),
                    mac_algorithm: MacAlgorithm::HmacSha256.into(),
                    mac: key.mac.clone(),
                    ..Default::default()
                };
                macs.verify_mac(request).await.map(drop)
            }
            other => panic!("this test does not know {other}"),
        }
    }
}

//! Records as JSON: in the form of AWS CloudTrail's events for KMS, and as they are.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::reader::Names;
use crate::{
    model::{encode_hex, leaf_hash},
    proto::audit::{Call, Entry, Phase, Wire, entry::Entry as Leaf},
};

/// A call as CloudTrail tells of it; none for what is no call's outcome.
pub fn cloudtrail(index: u64, bytes: &[u8], entry: &Entry, names: &Names) -> Option<Value> {
    let Some(Leaf::Call(call)) = &entry.entry else {
        return None;
    };
    if call.phase() != Phase::Outcome {
        return None;
    }
    let name = |place| names.name(place);
    let principal = name(call.principal_ref).unwrap_or_default();
    let key = name(call.key_ref);
    let account = [principal, key.unwrap_or_default()]
        .into_iter()
        .find_map(|arn| arn.split(':').nth(4));
    let account = account.unwrap_or_default();
    let mut parameters = serde_json::Map::new();
    let mut parameter = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            parameters.insert(name.to_owned(), value.into());
        }
    };
    parameter("keyId", key);
    parameter("macAlgorithm", name(call.mac_algorithm_ref));
    parameter("aliasName", some(&call.alias));
    parameter("grantId", some(&call.grant_id));
    let resources: Vec<Value> = key
        .into_iter()
        .map(|arn| {
            let account = arn.split(':').nth(4);
            json!({ "accountId": account, "type": "AWS::KMS::Key", "ARN": arn })
        })
        .collect();
    let operation = name(call.operation_ref).unwrap_or_default();
    let region = key.and_then(|arn| arn.split(':').nth(3));
    let reads = ["Describe", "Get", "List", "Generate", "Verify"];
    let mut event = json!({
        "eventVersion": "1.08",
        "userIdentity": identity(principal, account),
        "eventTime": time(call.time, SecondsFormat::Secs),
        "eventSource": "kms.amazonaws.com",
        "eventName": operation,
        "awsRegion": region,
        "sourceIPAddress": name(call.source_ref),
        "requestParameters": parameters,
        "responseElements": null,
        "requestID": uuid(&call.request_id),
        "eventID": event_id(bytes),
        "readOnly": reads.iter().any(|verb| operation.starts_with(verb)),
        "resources": resources,
        "eventType": if principal.is_empty() { "AwsServiceEvent" } else { "AwsApiCall" },
        "managementEvent": true,
        "eventCategory": "Management",
        "recipientAccountId": account,
        "additionalEventData": { "hsmac": hsmac(index, bytes, call) },
    });
    if let Some(exception) = name(call.exception_ref) {
        // As CloudTrail has it, without the word that each ends with.
        event["errorCode"] = exception
            .strip_suffix("Exception")
            .unwrap_or(exception)
            .into();
    }
    Some(event)
}

/// A record with all that it has.
pub fn record(index: u64, bytes: &[u8], entry: &Entry, names: &Names) -> Value {
    let precise = |micros| time(micros, SecondsFormat::Micros);
    let of = |kind: &str, rest: Value| {
        let mut record =
            json!({ "index": index, "leafHash": encode_hex(&leaf_hash(bytes)), "record": kind });
        if let (Some(record), Value::Object(rest)) = (record.as_object_mut(), rest) {
            record.extend(rest);
        }
        record
    };
    match &entry.entry {
        None => of("unknown", json!({})),
        Some(Leaf::Name(name)) => of("name", json!({ "name": name })),
        Some(Leaf::Started(one)) => of(
            "started",
            json!({ "time": precise(one.time), "version": one.version }),
        ),
        Some(Leaf::Strangers(one)) => of(
            "strangers",
            json!({ "time": precise(one.time), "source": one.source, "exception": one.exception, "count": one.count }),
        ),
        Some(Leaf::Gap(one)) => of(
            "gap",
            json!({ "time": precise(one.time), "refused": one.refused, "answered": one.answered, "reason": one.reason }),
        ),
        Some(Leaf::Call(call)) => {
            let name = |place| names.name(place);
            let phase = match call.phase() {
                Phase::Attempt => "attempt",
                Phase::Outcome => "outcome",
                Phase::Unspecified => "unknown",
            };
            of(
                "call",
                json!({
                    "time": precise(call.time),
                    "phase": phase,
                    "wire": wire(call),
                    "operation": name(call.operation_ref),
                    "principal": name(call.principal_ref),
                    "source": name(call.source_ref),
                    "key": name(call.key_ref),
                    "exception": name(call.exception_ref),
                    "macAlgorithm": name(call.mac_algorithm_ref),
                    "alias": some(&call.alias),
                    "grantId": some(&call.grant_id),
                    "requestId": uuid(&call.request_id),
                    "traceId": trace(call),
                }),
            )
        }
    }
}

fn hsmac(index: u64, bytes: &[u8], call: &Call) -> Value {
    json!({
        "index": index,
        "leafHash": encode_hex(&leaf_hash(bytes)),
        "wire": wire(call),
        "traceId": trace(call),
    })
}

fn wire(call: &Call) -> &'static str {
    match call.wire() {
        Wire::Grpc => "grpc",
        Wire::Aws => "aws",
        Wire::Unspecified => "unknown",
    }
}

fn trace(call: &Call) -> Option<String> {
    (!call.trace_id.is_empty()).then(|| encode_hex(&call.trace_id))
}

/// Who did it; hsmac itself is a service.
fn identity(principal: &str, account: &str) -> Value {
    if principal.is_empty() {
        return json!({ "type": "AWSService", "invokedBy": "hsmac" });
    }
    json!({ "type": kind(principal), "arn": principal, "accountId": account })
}

/// CloudTrail's type of an identity.
fn kind(principal: &str) -> &'static str {
    match principal.split(':').nth(5) {
        Some("root") => "Root",
        Some(resource) if resource.starts_with("assumed-role/") => "AssumedRole",
        Some(resource) if resource.starts_with("federated-user/") => "FederatedUser",
        Some(resource) if resource.starts_with("role/") => "Role",
        _ => "IAMUser",
    }
}

/// A UUID that is the record's own: the first half of its hash.
fn event_id(bytes: &[u8]) -> Option<String> {
    let hash = leaf_hash(bytes);
    let half = hash.first_chunk()?;
    Some(
        uuid::Builder::from_custom_bytes(*half)
            .into_uuid()
            .to_string(),
    )
}

fn uuid(bytes: &[u8]) -> Option<String> {
    uuid::Uuid::from_slice(bytes)
        .ok()
        .map(|uuid| uuid.to_string())
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn time(micros: u64, precision: SecondsFormat) -> Option<String> {
    let time = DateTime::<Utc>::from_timestamp_micros(i64::try_from(micros).ok()?)?;
    Some(time.to_rfc3339_opts(precision, true))
}

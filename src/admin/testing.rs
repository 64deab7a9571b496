//! An observation that has something of everything, for tests.

use std::time::{Duration, UNIX_EPOCH};

use super::{
    observation::{Observation, RuntimeFigures},
    process::ProcessFigures,
};
use crate::{
    audit,
    error::Kind,
    front::{
        CallCount, CallsSnapshot, ConnectionsSnapshot, LimitsSnapshot, RecentFault, Refusal,
        ThrottledPrincipal,
    },
    kms::{Overview, ScheduledDeletion, TroubledKey},
    metrics::{Distribution, Histogram},
    model::{Date, KeyState},
    store::StoreSnapshot,
    token::{FaultCount, GroupSnapshot, HostSnapshot, LastFault, State, TokenSnapshot},
};

/// 2023-11-14, 22:13:20.
pub(super) const NOW: u64 = 1_700_000_000;
pub(super) const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd";
const DAY: u64 = 86_400;

/// Two tokens of one group, one of them away; calls over both APIs; keys in each state.
pub(super) fn observation() -> Observation {
    let away = State::Away("no slot has a token hsmac-b".to_owned());
    let mut away = token("b", away);
    away.hosts.clear();
    Observation {
        at: UNIX_EPOCH + Duration::from_secs(NOW),
        overview: Overview {
            groups: vec![GroupSnapshot {
                name: "twins".to_owned(),
                queued: 3,
                queue_capacity: 1024,
                queue_wait: took(2),
                refused: [
                    ("full", 4),
                    ("displaced", 6),
                    ("hopeless", 7),
                    ("expired", 5),
                ],
                moved: vec![("busy", 1), ("host", 2), ("hedge", 3), ("hedge_won", 1)],
                tokens: vec![token("a", State::Up), away],
            }],
            keys: KeyState::ALL.map(|state| (state, 1)),
            troubled: vec![TroubledKey {
                arn: KEY.into(),
                description: "<script>alert(1)</script>".to_owned(),
                reason: "the token has no such object".to_owned(),
            }],
            deletions: vec![ScheduledDeletion {
                arn: KEY.into(),
                description: "of last year".to_owned(),
                date: Date::of_millis((NOW + 7 * DAY) * 1000),
            }],
            held: false,
            mac_mismatches: 6,
            reserved_messages: 7,
            pending_deletion_calls: 8,
            deletion_alarms: 0,
            store: Some(StoreSnapshot {
                commits: took(4),
                faults: [("away", 2), ("unknown", 1), ("damaged", 0)],
            }),
            authorization: took(9),
        },
        calls: vec![
            calls("grpc", Kind::KeyUnavailable),
            calls("aws", Kind::AccessDenied),
        ],
        limits: LimitsSnapshot {
            throttled: vec![
                ("cryptographic_operations_symmetric", 11),
                ("create_key", 0),
                ("concurrent", 1),
            ],
            principals: vec![ThrottledPrincipal {
                arn: "arn:aws:iam::111122223333:role/batch".to_owned(),
                quota: "cryptographic_operations_symmetric",
                count: 12,
                at: UNIX_EPOCH + Duration::from_secs(NOW - 20),
            }],
        },
        connections: vec![ConnectionsSnapshot {
            wire: "grpc",
            authenticated: 1,
            authenticated_limit: 768,
            unauthenticated: 2,
            unauthenticated_limit: 256,
            evicted: 3,
            failed_handshakes: [("no certificate", 4)].into(),
        }],
        certificates: vec![("grpc", "certificate", (NOW + 20 * DAY).cast_signed())],
        conditions: vec![
            ("hsmac.reload".to_owned(), true),
            ("hsmac.keys".to_owned(), false),
        ],
        store_trouble: None,
        audit: Some(audit::Snapshot {
            json_lag: Some(3),
            sealed: Some(audit::SealedUpTo {
                size: 900,
                waiting: Duration::from_secs(2),
                trouble: None,
            }),
            records: 20,
            size: 120,
            write_took: took(4),
            unrecorded: 3,
            failures: 1,
            free_bytes: 1 << 30,
            trouble: None,
            refuses: true,
        }),
        pending_restart: vec!["grpc.listen".to_owned()],
        is_ending: false,
        runtime: RuntimeFigures {
            busy: vec![Duration::from_secs(1), Duration::from_millis(500)],
            queued: 2,
        },
        process: ProcessFigures {
            cpu_seconds: 1.5,
            resident_bytes: 50 << 20,
            open_descriptors: 40,
            most_descriptors: 1024,
            threads: 6,
            start_time: 1_699_990_000.0,
        },
        traces: None,
    }
}

fn token(name: &str, state: State) -> TokenSnapshot {
    TokenSnapshot {
        pending_settings: None,
        name: name.to_owned(),
        state,
        since: UNIX_EPOCH + Duration::from_secs(NOW - 600),
        hosts: vec![HostSnapshot {
            generation: 1,
            since: UNIX_EPOCH + Duration::from_secs(NOW - 500),
            sessions: 2,
            jobs: 3,
            stuck: false,
        }],
        hosts_starting: 1,
        hosts_configured: 2,
        calls: vec![("mac", took(3)), ("find", took(1))],
        faults: vec![FaultCount {
            function: "C_Sign".to_owned(),
            code: "CKR_DEVICE_ERROR".to_owned(),
            count: 2,
        }],
        last_fault: Some(LastFault {
            at: UNIX_EPOCH + Duration::from_secs(NOW - 300),
            function: "C_Sign".to_owned(),
            code: "CKR_DEVICE_ERROR".to_owned(),
            reason: "the device reports a fault".to_owned(),
        }),
        host_ends: vec![("planned", 0), ("crash", 1)],
    }
}

fn calls(wire: &'static str, failed: Kind) -> CallsSnapshot {
    let count = |exception, count| CallCount {
        operation: "GenerateMac",
        exception,
        count,
    };
    CallsSnapshot {
        wire,
        counts: vec![count(None, 90), count(Some(failed), 10)],
        faults: Vec::from_iter((failed == Kind::KeyUnavailable).then(|| RecentFault {
            at: UNIX_EPOCH + Duration::from_secs(NOW - 30),
            request_id: "5d9e2a4c-0000-4000-8000-000000000001".to_owned(),
            operation: "GenerateMac",
            kind: failed,
            cause: Some("no host serves".into()),
        })),
        refusals: Vec::from_iter((failed == Kind::AccessDenied).then(|| Refusal {
            caller: Some("arn:aws:iam::111122223333:user/eve".to_owned()),
            operation: "GenerateMac",
            kind: failed,
            count: 10,
            at: UNIX_EPOCH + Duration::from_secs(NOW - 40),
            request_id: "5d9e2a4c-0000-4000-8000-000000000002".to_owned(),
        })),
        took: vec![
            ("GenerateMac", took(100)),
            ("VerifyMac", took(0)),
            ("management", took(0)),
        ],
        authentication: took(5),
    }
}

/// So many calls of two milliseconds.
pub(super) fn took(count: u64) -> Distribution {
    let histogram = Histogram::default();
    for _ in 0..count {
        histogram.observe(Duration::from_millis(2));
    }
    histogram.snapshot()
}

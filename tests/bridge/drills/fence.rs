//! Disabled means disabled: after DisableKey has returned, the token makes no MAC with the key; after
//! PutKeyPolicy, none for those whom the policy denies it; after RevokeGrant and RetireGrant, none for
//! those whom nothing but the grant allowed it.

use std::sync::atomic::AtomicU32;

use hsmac::proto::v1::{
    CreateGrantRequest, CreateGrantResponse, DisableKeyRequest, EnableKeyRequest,
    GenerateMacResponse, PutKeyPolicyRequest, RetireGrantRequest, RevokeGrantRequest,
    key_service_client::KeyServiceClient,
};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::*;
use crate::support::{CALLER, assert_status};

/// Security: 64 callers at a token that takes its time; no call that begins after DisableKey has
/// returned makes a MAC, and those that began before have ended by then.
#[tokio::test]
async fn after_disable_key_has_returned_no_mac_is_made_with_the_key() {
    let refused = Refused {
        by: "DisableKey",
        code: Code::FailedPrecondition,
        reason: "DISABLED",
        says: "is disabled.",
    };
    let enable = async |keys: &mut Keys, key_id: &str| {
        let key_id = key_id.to_owned();
        keys.enable_key(EnableKeyRequest { key_id }).await.unwrap();
    };
    let begin = async |_: &mut Keys, _: &str| {};
    fenced(refused, begin, disable, enable).await;
}

/// Security: the same for a policy that denies the callers what the one before allowed.
#[tokio::test]
async fn after_put_key_policy_has_returned_no_call_that_it_denies_makes_a_mac() {
    let refused = Refused {
        by: "PutKeyPolicy",
        code: Code::PermissionDenied,
        reason: "ACCESS_DENIED",
        says: "with an explicit deny in a resource-based policy",
    };
    let put = async |keys: &mut Keys, key_id: &str, effect: &str| {
        let put = PutKeyPolicyRequest {
            key_id: key_id.to_owned(),
            policy: Some(format!(
                r#"{{"Statement":[
                    {{"Effect":"Allow","Principal":{{"AWS":"111122223333"}},"Action":"kms:*","Resource":"*"}},
                    {{"Effect":"{effect}","Principal":"*","Action":"kms:GenerateMac","Resource":"*"}}]}}"#
            )),
            ..Default::default()
        };
        keys.put_key_policy(put).await.unwrap();
    };
    fenced(
        refused,
        async |_: &mut Keys, _: &str| {},
        async |keys: &mut Keys, key_id: &str| put(keys, key_id, "Deny").await,
        async |keys: &mut Keys, key_id: &str| put(keys, key_id, "Allow").await,
    )
    .await;
}

/// Security: the same for a grant that is revoked, and nothing else lets the callers in.
#[tokio::test]
async fn after_revoke_grant_has_returned_no_call_that_the_grant_allowed_makes_a_mac() {
    let now = Mutex::new(None);
    fenced(
        NOT_GRANTED,
        async |keys: &mut Keys, key_id: &str| {
            only_by_grants(keys, key_id).await;
            let made = grant(keys, key_id).await;
            *now.lock().unwrap() = Some(made);
        },
        async |keys: &mut Keys, key_id: &str| {
            let made = now.lock().unwrap().take().unwrap();
            revoke(keys, key_id, made).await;
        },
        async |keys: &mut Keys, key_id: &str| {
            let made = grant(keys, key_id).await;
            *now.lock().unwrap() = Some(made);
        },
    )
    .await;
}

/// Security: and for one that is retired.
#[tokio::test]
async fn after_retire_grant_has_returned_no_call_that_the_grant_allowed_makes_a_mac() {
    let now = Mutex::new(None);
    fenced(
        NOT_GRANTED,
        async |keys: &mut Keys, key_id: &str| {
            only_by_grants(keys, key_id).await;
            let made = grant(keys, key_id).await;
            *now.lock().unwrap() = Some(made);
        },
        async |keys: &mut Keys, _: &str| {
            let made = now.lock().unwrap().take().unwrap();
            let retire = RetireGrantRequest {
                grant_token: Some(made.grant_token),
                ..Default::default()
            };
            keys.retire_grant(retire).await.unwrap();
        },
        async |keys: &mut Keys, key_id: &str| {
            let made = grant(keys, key_id).await;
            *now.lock().unwrap() = Some(made);
        },
    )
    .await;
}

/// Who has two grants loses nothing with one of them, not even the call that it had let in.
#[tokio::test]
async fn a_grant_that_is_revoked_beside_another_one_stops_nobody() {
    let member = Member::new("primary");
    member.rules("delay C_Sign 3ms");
    let store = member.token.store();
    let drill = Drill::spawn_with(vec![member], "hosts = 2\n", &store)
        .up(2)
        .await;
    let key_id = drill.server.create().await.unwrap();
    let mut keys = drill.server.keys().await;
    only_by_grants(&mut keys, &key_id).await;
    let mut held = grant(&mut keys, &key_id).await;
    let (made, ended) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let mut client = drill.server.mac().await;
        let (made, ended, key_id) = (Arc::clone(&made), Arc::clone(&ended), key_id.clone());
        callers.spawn(async move {
            while !ended.load(Ordering::SeqCst) {
                let mut request = request(b"x");
                request.key_id.clone_from(&key_id);
                client.generate_mac(request).await.unwrap();
                made.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for _ in 0..20 {
        let goal = made.load(Ordering::SeqCst) + 8;
        until("MACs", || {
            (made.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
        let next = grant(&mut keys, &key_id).await;
        revoke(&mut keys, &key_id, std::mem::replace(&mut held, next)).await;
    }
    ended.store(true, Ordering::SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

const NOT_GRANTED: Refused = Refused {
    by: "the end of a grant",
    code: Code::PermissionDenied,
    reason: "ACCESS_DENIED",
    says: "because no resource-based policy allows the kms:GenerateMac action",
};

/// Leaves the caller all rights but the one to make MACs.
async fn only_by_grants(keys: &mut Keys, key_id: &str) {
    let put = PutKeyPolicyRequest {
        key_id: key_id.to_owned(),
        policy: Some(format!(
            r#"{{"Statement":{{"Effect":"Allow","Principal":{{"AWS":"{CALLER}"}},"NotAction":"kms:GenerateMac","Resource":"*"}}}}"#
        )),
        ..Default::default()
    };
    keys.put_key_policy(put).await.unwrap();
}

async fn grant(keys: &mut Keys, key_id: &str) -> CreateGrantResponse {
    let create = CreateGrantRequest {
        key_id: key_id.to_owned(),
        grantee_principal: Some(CALLER.to_owned()),
        retiring_principal: Some(CALLER.to_owned()),
        operations: vec!["GenerateMac".into()],
        ..Default::default()
    };
    keys.create_grant(create).await.unwrap().into_inner()
}

async fn revoke(keys: &mut Keys, key_id: &str, made: CreateGrantResponse) {
    let revoke = RevokeGrantRequest {
        key_id: key_id.to_owned(),
        grant_id: made.grant_id,
        dry_run: false,
    };
    keys.revoke_grant(revoke).await.unwrap();
}

/// A policy says who may use a key, and nothing of its object: hosts go on with the handle that they have.
#[tokio::test]
async fn put_key_policy_costs_no_search() {
    let member = Member::new("primary");
    member.rules("journal C_FindObjectsInit");
    let store = member.token.store();
    let mut drill = Drill::spawn_with(vec![member], "hosts = 1\n", &store);
    drill.server.until_log("listening").await;
    drill.server.serving(1).await;
    let key_id = drill.server.create().await.unwrap();
    let mut keys = KeyServiceClient::new(drill.server.channel().await);
    drill.server.mac_with(&key_id, b"x").await.unwrap();
    let before = drill.token().journal();
    assert!(!before.is_empty(), "the key was searched once");
    for number in 0..10 {
        let put = PutKeyPolicyRequest {
            key_id: key_id.clone(),
            policy: Some(format!(
                r#"{{"Statement":{{"Sid":"{number}","Effect":"Allow","Principal":{{"AWS":"111122223333"}},"Action":"kms:*","Resource":"*"}}}}"#
            )),
            ..Default::default()
        };
        keys.put_key_policy(put).await.unwrap();
        drill.server.mac_with(&key_id, b"x").await.unwrap();
    }
    assert_eq!(drill.token().journal(), before, "{}", drill.server.log());
    // A key that was disabled is another matter: its handle is gone.
    disable(&mut keys, &key_id).await;
    let enable = EnableKeyRequest {
        key_id: key_id.clone(),
    };
    keys.enable_key(enable).await.unwrap();
    drill.server.mac_with(&key_id, b"x").await.unwrap();
    assert!(drill.token().journal().len() > before.len());
}

/// Security: nor does a call that hangs keep a policy from being in force, for long.
#[tokio::test]
async fn a_call_that_hangs_does_not_hold_put_key_policy_for_long() {
    let (drill, key_id, call) = a_call_that_hangs().await;
    let mut keys = drill.server.keys().await;
    let deny = r#"{"Statement":[
        {"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"kms:*","Resource":"*"},
        {"Effect":"Deny","Principal":"*","Action":"kms:GenerateMac","Resource":"*"}]}"#;
    let mut put = tonic::Request::new(PutKeyPolicyRequest {
        key_id,
        policy: Some(deny.into()),
        ..Default::default()
    });
    put.set_timeout(Duration::from_secs(50));
    let began = Instant::now();
    keys.put_key_policy(put).await.unwrap();
    let took = began.elapsed();
    println!("PutKeyPolicy beside a call that hangs took {took:?}");
    assert!(took < CALL_TIMEOUT / 2, "{took:?}");
    let status = call.await.unwrap().unwrap_err();
    let code = status.code();
    assert!(
        matches!(code, Code::PermissionDenied | Code::DeadlineExceeded),
        "{status:?}"
    );
    drill.rules("");
}

/// So long that what waited for it is told from what a busy machine is slow to do.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

type MacCall = JoinHandle<Result<GenerateMacResponse, Status>>;

/// A drill with a created key, and a call for that key which the module does not answer.
async fn a_call_that_hangs() -> (Drill, String, MacCall) {
    let member = Member::new("primary");
    let store = member.token.store();
    let settings = format!(
        "hosts = 2\ncall_timeout = \"{}s\"\n",
        CALL_TIMEOUT.as_secs()
    );
    let drill = Drill::spawn_with(vec![member], &settings, &store)
        .up(2)
        .await;
    let key_id = drill.server.create().await.unwrap();
    drill.server.mac_with(&key_id, b"x").await.unwrap();
    let hang = "C_Sign hang";
    let asked = drill.token().asked(hang);
    drill.rules("hang C_Sign");
    let mut client = drill.server.mac().await;
    let mut hanging = request(b"x");
    hanging.key_id.clone_from(&key_id);
    let call = tokio::spawn(async move {
        let answer = client.generate_mac(hanging).await;
        answer.map(tonic::Response::into_inner)
    });
    until("a call that hangs", || {
        (drill.token().asked(hang) > asked).then_some(())
    })
    .await;
    (drill, key_id, call)
}

type Keys = KeyServiceClient<Channel>;

/// What callers are told once the fence stands.
#[derive(Clone, Copy)]
struct Refused {
    by: &'static str,
    code: Code,
    reason: &'static str,
    says: &'static str,
}

impl Refused {
    fn assert(&self, status: &Status) {
        assert_status(status, self.code, self.reason, self.says);
    }
}

/// Stops a key and lets it go on, again and again, beside 64 callers.
async fn fenced(
    refused: Refused,
    begin: impl AsyncFn(&mut Keys, &str),
    stop: impl AsyncFn(&mut Keys, &str),
    go_on: impl AsyncFn(&mut Keys, &str),
) {
    let member = Member::new("primary");
    member.rules("delay C_Sign 3ms");
    let store = member.token.store();
    let mut drill = Drill::spawn_with(vec![member], "hosts = 2\n", &store);
    drill.server.until_log("listening").await;
    drill.server.serving(2).await;
    let key_id = drill.server.create().await.unwrap();
    let mut keys = KeyServiceClient::new(drill.server.channel().await);
    begin(&mut keys, &key_id).await;
    let rounds = if long() { 1000 } else { 50 };

    // Odd while the key is stopped and nobody has asked to let it go on.
    let phase = Arc::new(AtomicU32::new(0));
    let made = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let mut client = drill.server.mac().await;
        let (phase, made, ended, key_id) = (
            Arc::clone(&phase),
            Arc::clone(&made),
            Arc::clone(&ended),
            key_id.clone(),
        );
        callers.spawn(async move {
            while !ended.load(Ordering::SeqCst) {
                let before = phase.load(Ordering::SeqCst);
                let mut request = request(b"x");
                request.key_id.clone_from(&key_id);
                match client.generate_mac(request).await {
                    Ok(_) => {
                        let after = phase.load(Ordering::SeqCst);
                        assert!(
                            before % 2 == 0 || after != before,
                            "a MAC of a call that began after {} had returned",
                            refused.by
                        );
                        made.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(status) => {
                        refused.assert(&status);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
        });
    }

    let mut waited = Vec::new();
    for _ in 0..rounds {
        let goal = made.load(Ordering::SeqCst) + 8;
        until("MACs", || {
            (made.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
        let began = Instant::now();
        stop(&mut keys, &key_id).await;
        waited.push(began.elapsed());
        let signed = drill.token().asked("C_Sign");
        phase.fetch_add(1, Ordering::SeqCst);
        let mut client = drill.server.mac().await;
        for _ in 0..4 {
            let mut request = request(b"y");
            request.key_id.clone_from(&key_id);
            refused.assert(&client.generate_mac(request).await.unwrap_err());
        }
        assert_eq!(drill.token().asked("C_Sign"), signed, "the token was asked");
        phase.fetch_add(1, Ordering::SeqCst);
        go_on(&mut keys, &key_id).await;
    }
    ended.store(true, Ordering::SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let made = made.load(Ordering::SeqCst);
    println!(
        "{rounds} times {} beside 64 callers, {made} MACs, none after it; it took {}",
        refused.by,
        heal_times(&waited).replace("healed", "")
    );
    assert_eq!(
        drill.logged("a host is replaced"),
        0,
        "nobody had to be killed"
    );
}

async fn disable(keys: &mut Keys, key_id: &str) {
    let key_id = key_id.to_owned();
    keys.disable_key(DisableKeyRequest { key_id })
        .await
        .unwrap();
}

/// Security: a call that hangs in the library cannot hold the fence for ever: its host is ended.
#[tokio::test]
async fn a_call_that_hangs_does_not_hold_disable_key_for_long() {
    let (drill, key_id, call) = a_call_that_hangs().await;
    let mut keys = drill.server.keys().await;
    let began = Instant::now();
    let disable = DisableKeyRequest {
        key_id: key_id.clone(),
    };
    let mut disable = tonic::Request::new(disable);
    disable.set_timeout(Duration::from_secs(50));
    keys.disable_key(disable).await.unwrap();
    let took = began.elapsed();
    println!("DisableKey beside a call that hangs took {took:?}");
    assert!(took < CALL_TIMEOUT / 2, "{took:?}");
    let status = call.await.unwrap().unwrap_err();
    assert!(
        matches!(
            status.code(),
            Code::FailedPrecondition | Code::DeadlineExceeded
        ),
        "{status:?}"
    );
    drill.rules("");
}

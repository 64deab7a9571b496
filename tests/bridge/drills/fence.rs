//! Disabled means disabled: after DisableKey has returned, the token makes no MAC with the key.

use std::sync::atomic::AtomicU32;

use hsmac::proto::v1::{DisableKeyRequest, EnableKeyRequest, key_service_client::KeyServiceClient};
use tonic::{Code, transport::Channel};

use super::*;
use crate::support::assert_status;

/// Security: 64 callers at a token that takes its time; no call that begins after DisableKey has
/// returned makes a MAC, and those that began before have ended by then.
#[tokio::test]
async fn after_disable_key_has_returned_no_mac_is_made_with_the_key() {
    let rounds = if long() { 1000 } else { 50 };
    let member = Member::new("primary");
    member.rules("delay C_Sign 3ms");
    let store = member.token.store();
    let mut drill = Drill::spawn_with(vec![member], "hosts = 2\n", &store);
    drill.server.until_log("listening").await;
    drill.server.serving(2).await;
    let key_id = drill.server.create().await.unwrap();
    let mut keys = KeyServiceClient::new(drill.server.channel().await);

    // Odd while the key is disabled and nobody has asked to enable it.
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
                            "a MAC of a call that began after DisableKey had returned"
                        );
                        made.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(status) => {
                        assert_status(
                            &status,
                            Code::FailedPrecondition,
                            "DISABLED",
                            "is disabled.",
                        );
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
        disable(&mut keys, &key_id).await;
        waited.push(began.elapsed());
        let signed = drill.token().asked("C_Sign");
        phase.fetch_add(1, Ordering::SeqCst);
        let mut client = drill.server.mac().await;
        for _ in 0..4 {
            let mut request = request(b"y");
            request.key_id.clone_from(&key_id);
            let status = client.generate_mac(request).await.unwrap_err();
            assert_status(
                &status,
                Code::FailedPrecondition,
                "DISABLED",
                "is disabled.",
            );
        }
        assert_eq!(drill.token().asked("C_Sign"), signed, "the token was asked");
        phase.fetch_add(1, Ordering::SeqCst);
        let enable = EnableKeyRequest {
            key_id: key_id.clone(),
        };
        keys.enable_key(enable).await.unwrap();
    }
    ended.store(true, Ordering::SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let made = made.load(Ordering::SeqCst);
    println!(
        "{rounds} times DisableKey beside 64 callers, {made} MACs, none after it; it took {}",
        heal_times(&waited).replace("healed", "")
    );
    assert_eq!(
        drill.logged("a host is replaced"),
        0,
        "nobody had to be killed"
    );
}

async fn disable(keys: &mut KeyServiceClient<Channel>, key_id: &str) {
    let disable = DisableKeyRequest {
        key_id: key_id.to_owned(),
    };
    keys.disable_key(disable).await.unwrap();
}

/// Security: a call that hangs in the library cannot hold the fence for ever: its host is ended.
#[tokio::test]
async fn a_call_that_hangs_does_not_hold_disable_key_for_long() {
    let member = Member::new("primary");
    let store = member.token.store();
    let mut drill = Drill::spawn_with(vec![member], "hosts = 2\n", &store);
    drill.server.until_log("listening").await;
    drill.server.serving(2).await;
    let key_id = drill.server.create().await.unwrap();
    drill.server.mac_with(&key_id, b"x").await.unwrap();
    drill.rules("hang C_Sign");
    let asked = drill.token().asked("C_Sign hang");
    let mut client = drill.server.mac().await;
    let id = key_id.clone();
    let call = tokio::spawn(async move {
        let mut request = request(b"x");
        request.key_id = id;
        client.generate_mac(request).await
    });
    until("a call that hangs", || {
        (drill.token().asked("C_Sign hang") > asked).then_some(())
    })
    .await;
    let mut keys = drill.server.keys().await;
    let began = Instant::now();
    let disable = DisableKeyRequest {
        key_id: key_id.clone(),
    };
    let mut disable = tonic::Request::new(disable);
    disable.set_timeout(Duration::from_secs(20));
    keys.disable_key(disable).await.unwrap();
    let took = began.elapsed();
    println!("DisableKey beside a call that hangs took {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
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

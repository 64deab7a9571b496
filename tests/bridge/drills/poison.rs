//! One caller's message, or one key, that the token answers with a general failure, for good: that is
//! this caller's trouble, or this key's, and nobody else's.

use std::process::Command;

use tonic::Status;

use super::*;

const CODES: [&str; 4] = [
    "CKR_FUNCTION_FAILED",
    "CKR_DEVICE_MEMORY",
    "CKR_OPERATION_ACTIVE",
    "0x80000001",
];
const POISON: &[u8] = b"poison";
/// What a polite caller waits for an answer at most, on a machine that is busy with other things too;
/// the goal is one second.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a rude caller waits for their error at most, on such a machine; the goal is two seconds.
const TOLD_WITHIN: Duration = Duration::from_secs(8);
/// The two that serve, and what may be started to find out whose fault it is.
const MOST_HOSTS: usize = 8;

/// Security: one caller's poison is that caller's trouble.
#[tokio::test]
async fn a_message_that_always_fails_is_its_callers_trouble() {
    for code in CODES {
        let rule = format!("return C_Sign {code} when-message-begins 706f69736f6e");
        beside(&format!("{code} for one message"), &rule, OTHER_ID).await;
    }
}

/// Security: even where the others have the same key.
#[tokio::test]
async fn a_message_that_always_fails_is_not_the_trouble_of_others_with_its_key() {
    for code in CODES {
        let rule = format!("return C_Sign {code} when-message-begins 706f69736f6e");
        let what = format!("{code} for one message, the key is everybody's");
        let drill = beside(&what, &rule, KEY_ID).await;
        if code == CODES[0] {
            serves_again(&drill, KEY_ID).await;
        }
    }
}

#[tokio::test]
async fn a_key_that_always_fails_is_that_keys_trouble() {
    for code in CODES {
        for function in ["C_Sign", "C_SignInit"] {
            // The polite have the key `mac`.
            let rule = format!("return {function} {code} when-key-label other");
            let what = format!("{code} of {function} for one key");
            let drill = beside(&what, &rule, OTHER_ID).await;
            if (code, function) == (CODES[0], "C_Sign") {
                serves_again(&drill, OTHER_ID).await;
            }
        }
    }
}

/// Two rude callers, who ask again as soon as they are told, beside four polite ones.
async fn beside(what: &str, rule: &str, of_the_rude: &str) -> Drill {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    // Both keys have served before.
    load.end(&format!("{what}: before"), &[]).await;
    drill.rules(rule);
    let time = if long() {
        Duration::from_secs(6)
    } else {
        Duration::from_secs(2)
    };
    let end = Instant::now() + time;
    let mut polite = JoinSet::new();
    for caller in 0..4_u64 {
        let mut client = drill.server.mac().await;
        polite.spawn(async move {
            let (mut made, mut slowest) = (caller << 32, Duration::ZERO);
            while Instant::now() < end {
                made += 1;
                let message = made.to_be_bytes();
                let asked = Instant::now();
                let answer = client.generate_mac(request(&message)).await;
                slowest = slowest.max(asked.elapsed());
                let mac = answer.map_err(|status| said(&status))?.into_inner().mac;
                assert_eq!(mac, hmac_sha256(&KEY, &message));
            }
            Ok::<_, String>((made & 0xffff_ffff, slowest))
        });
    }
    let mut rude = JoinSet::new();
    for _ in 0..2 {
        let mut client = drill.server.mac().await;
        let key_id = of_the_rude.to_owned();
        rude.spawn(async move {
            let mut told: Vec<(Duration, Status)> = Vec::new();
            while Instant::now() < end {
                let mut request = request(POISON);
                request.key_id.clone_from(&key_id);
                let asked = Instant::now();
                let status = client.generate_mac(request).await.unwrap_err();
                told.push((asked.elapsed(), status));
            }
            told
        });
    }
    let (mut made, mut slowest, mut failed) = (0, Duration::ZERO, Vec::new());
    while let Some(ended) = polite.join_next().await {
        match ended.unwrap() {
            Ok((macs, took)) => (made, slowest) = (made + macs, slowest.max(took)),
            Err(said) => failed.push(said),
        }
    }
    let told: Vec<(Duration, Status)> = rude.join_all().await.into_iter().flatten().collect();
    let latest = told.iter().map(|(took, _)| *took).max().unwrap();
    let (acted, hosts) = (drill.token().applied(rule), drill.logged("a host serves"));
    let mut words: BTreeMap<String, u64> = BTreeMap::new();
    for (_, status) in &told {
        *words.entry(said(status)).or_default() += 1;
    }
    println!(
        "{what}\t{made} polite MACs, slowest {slowest:.1?}, failed {failed:?}\t{} rude errors, \
         latest {latest:.1?}\t{hosts} hosts, the fault acted {acted} times\n  {words:?}",
        told.len(),
    );
    let log = drill.server.log();
    assert!(acted > 0, "{rule} acts");
    assert!(
        failed.is_empty(),
        "{what}: polite callers failed: {failed:?}\n{log}"
    );
    assert!(
        slowest < PATIENCE,
        "{what}: a polite caller waited {slowest:?}\n{log}"
    );
    assert!(
        hosts <= MOST_HOSTS,
        "{what}: {hosts} hosts were started\n{log}"
    );
    assert!(
        latest < TOLD_WITHIN,
        "{what}: a rude caller waited {latest:?}\n{log}"
    );
    for said in words.keys() {
        // The message's fault or the key's; not the token's, which is neither away nor slow.
        let blames = ["message", "key"].iter().any(|word| said.contains(word));
        let others = ["token was not available", "timed out", "internal", "rate"];
        assert!(
            blames && !others.iter().any(|word| said.contains(word)),
            "{what}: {said:?} does not say whose fault it is"
        );
    }
    // The hosts live: no process was replaced behind the log's back.
    let processes = Command::new("ps")
        .args([
            "--no-headers",
            "--ppid",
            &drill.server.child.id().to_string(),
        ])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&processes.stdout).lines().count() >= 2);
    drill
}

/// When the fault goes, so does the cool-off.
async fn serves_again(drill: &Drill, key_id: &str) {
    drill.rules("");
    let mut client = drill.server.mac().await;
    let began = Instant::now();
    loop {
        let mut request = request(POISON);
        request.key_id = key_id.to_owned();
        let Err(status) = client.generate_mac(request).await else {
            return;
        };
        assert!(began.elapsed() < LIMIT, "{}", said(&status));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! Ten thousand keys in the catalogue, a hundred of them in the token.

use std::time::Instant;

use hsmac::proto::v1::ListKeysRequest;

use crate::support::{Token, hex, hmac_sha256, many_id};

const KEYS: usize = 10_000;
const IN_THE_TOKEN: usize = 100;

fn material(number: usize) -> [u8; 32] {
    let mut material = [7; 32];
    material[..8].copy_from_slice(&number.to_be_bytes());
    material
}

#[tokio::test]
async fn ten_thousand_keys_start_soon_serve_and_are_listed_while_more_come() {
    let token = Token::with_key();
    let objects: String = (0..IN_THE_TOKEN)
        .map(|number| {
            let hex = hex(&material(number));
            format!("generic many {number:08x} {hex}\n")
        })
        .collect();
    token.inside(&objects);
    token.seed_many(KEYS).await;
    let config = token.config() + &token.store();

    let began = Instant::now();
    let mut server = token.spawn(&config);
    server.until_log("listening").await;
    let started = began.elapsed();
    println!("a start with {KEYS} keys took {started:?}");

    for number in (0..IN_THE_TOKEN).step_by(9) {
        let mac = server.mac_with(&many_id(number), b"x").await;
        let mac = mac.unwrap_or_else(|status| panic!("{status}: {}", server.log()));
        assert_eq!(mac, hmac_sha256(&material(number), b"x"));
    }

    // Pages of 100 while others create keys: each old one exactly once.
    let mut client = server.keys().await;
    let mut listed = Vec::new();
    let mut created = Vec::new();
    let mut marker = None;
    loop {
        let request = ListKeysRequest {
            limit: Some(100),
            marker: marker.take(),
        };
        let page = client.list_keys(request).await.unwrap().into_inner();
        listed.extend(page.keys.into_iter().map(|key| key.key_id));
        if listed.len() % 1000 < 100 {
            created.push(server.create().await.unwrap());
        }
        match page.next_marker {
            Some(next) => marker = Some(next),
            None => break,
        }
    }
    assert!(created.len() >= 10, "{created:?}");
    let sorted = listed.is_sorted_by(|one, two| one < two);
    assert!(sorted, "a key is there twice, or out of order");
    listed.retain(|key| !created.contains(key));
    // The declared key is one more.
    assert_eq!(listed.len(), KEYS + 1);
}

//! Tokens that a reload adds, changes and takes away, under load.

use hsmac::proto::v1::GenerateRandomRequest;
use tonic::Code;

use super::*;
use crate::support::{assert_status, signal};

/// Its keys are [`KEY_ID`] and [`OTHER_ID`], in this token or group.
fn keys_in(token: &str) -> String {
    let keys = [
        declare(KEY_ID, "mac", "HMAC_256", "alias/test"),
        declare(OTHER_ID, "other", "HMAC_256", "alias/other"),
    ];
    keys.map(|key| format!("{key}token = \"{token}\"\n"))
        .concat()
}

const THIRD_ID: &str = "00000000-0000-4000-8000-00000000000c";

impl Drill {
    /// Writes a configuration with these lines at the top and these sections at the end, and reloads it.
    async fn reload(&self, top: &str, sections: &str) {
        let reloaded = self.logged(" reloaded ");
        self.write(top, sections);
        signal(self.server.child.id(), "HUP");
        self.until_logged(" reloaded ", reloaded).await;
    }

    fn write(&self, top: &str, sections: &str) {
        let token = &self.members[0].token;
        let file = token.path("hsmac.toml");
        let before = fs::read_to_string(&file).unwrap();
        let (head, _) = before.split_once("\n[token.").unwrap();
        let head: Vec<&str> = head
            .lines()
            .filter(|line| !line.starts_with("new_keys"))
            .collect();
        let config = format!("{top}{}\n{sections}", head.join("\n"));
        fs::write(token.path("new.toml"), config).unwrap();
        fs::rename(token.path("new.toml"), file).unwrap();
    }

    /// Waits until these are all hosts that run, each another process than those.
    async fn until_hosts(&self, hosts: usize, others: &[u32]) -> Vec<u32> {
        until("the new hosts alone", || {
            let now = self.server.hosts();
            let is_new = now.iter().all(|host| !others.contains(host));
            (now.len() == hosts && is_new).then_some(now)
        })
        .await
    }
}

const KEYS: fn() -> String = || {
    declare(KEY_ID, "mac", "HMAC_256", "alias/test")
        + &declare(OTHER_ID, "other", "HMAC_256", "alias/other")
};

#[tokio::test]
async fn a_token_gets_other_settings_and_no_call_is_lost() {
    let drill = Drill::start("").await;
    let member = drill.token();
    let load = drill.load().await;
    member
        .token
        .write_pin_file("elsewhere", crate::support::PIN);
    let usual = member.section("hosts = 2\n");
    let changes = [
        member.section("hosts = 3\nsessions = 2\ncall_timeout = \"7s\"\nqueue = 100\n"),
        // The module itself, without the one that wraps it.
        usual.replace(
            &fault_module().display().to_string(),
            &member.token.wrapped().display().to_string(),
        ),
        usual.replace("/pin\"", "/elsewhere\""),
        usual.clone() + "group = \"another\"\n",
        usual,
    ];
    for section in changes {
        let before = drill.server.hosts();
        drill.reload("", &(section.clone() + &KEYS())).await;
        let hosts = if section.contains("hosts = 3") { 3 } else { 2 };
        drill.until_hosts(hosts, &before).await;
        load.goes_on(much(300)).await;
    }
    assert_eq!(drill.logged("event=restart_pending"), 0);
    assert_eq!(drill.logged("event=token_changed"), 3);
    load.end_without_failure(&drill, "other settings for a token", &[])
        .await;
}

#[tokio::test]
async fn settings_with_which_no_host_comes_up_leave_the_hosts_that_serve() {
    let drill = Drill::start("").await;
    let member = drill.token();
    let load = drill.load().await;
    let before = drill.server.hosts();
    let usual = member.section("hosts = 2\n");
    for wrong in [
        usual.replace("token=hsmac-test", "token=hsmac-tset"),
        usual.replace("module-path=/", "module-path=/no/such"),
    ] {
        let words = "event=token_settings_pending";
        let waiting = drill.logged(words);
        drill.reload("", &(wrong + &KEYS())).await;
        drill.until_logged(words, waiting).await;
        load.goes_on(much(200)).await;
        let now = drill.server.hosts();
        assert!(before.iter().all(|host| now.contains(host)), "{now:?}");
    }
    drill.reload("", &(usual + &KEYS())).await;
    until("the old hosts alone", || {
        (drill.server.hosts() == before).then_some(())
    })
    .await;
    assert_eq!(drill.logged("the token is unavailable"), 0);
    assert_eq!(drill.logged("event=token_changed"), 0);
    load.end_without_failure(&drill, "settings with which no host comes up", &[])
        .await;
}

#[tokio::test]
async fn a_reload_that_is_refused_changes_no_token() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    let before = drill.server.hosts();
    let refused = drill.logged("not reloaded");
    let broken = drill.token().section("hosts = 3\n") + &KEYS() + "[[key]]\nkey_id = \"x\"\n";
    drill.write("", &broken);
    signal(drill.server.child.id(), "HUP");
    drill.until_logged("not reloaded", refused).await;
    load.goes_on(much(200)).await;
    assert_eq!(drill.server.hosts(), before);
    load.end_without_failure(&drill, "a reload that is refused", &[])
        .await;
}

#[tokio::test]
async fn a_token_comes_with_its_keys_and_goes_and_the_others_lose_no_call() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    let second = Member::new("second");
    let primary = drill.token().section("hosts = 2\n");
    let third = declare(THIRD_ID, "other", "HMAC_256", "alias/third") + "token = \"second\"\n";
    let both = primary.clone() + &second.section("") + &keys_in("primary") + &third;
    let alone = primary + &keys_in("primary");
    let hosts = drill.server.hosts();
    for round in 0..2 {
        drill.reload("new_keys = \"primary\"\n", &both).await;
        // It waits for the host, if that has not come up yet.
        let made = drill.server.mac_with("alias/third", b"x").await.unwrap();
        assert_eq!(made, hmac_sha256(&OTHER_KEY, b"x"));
        load.goes_on(much(100)).await;
        drill.reload("", &alone).await;
        let refused = drill.server.mac_with("alias/third", b"x").await;
        assert_status(&refused.unwrap_err(), Code::NotFound, "NOT_FOUND", "");
        until("the hosts of the other token end", || {
            (drill.server.hosts() == hosts).then_some(())
        })
        .await;
        load.goes_on(much(100)).await;
        assert_eq!(drill.logged("event=token_added"), round + 1);
        assert_eq!(drill.logged("event=token_removed"), round + 1);
    }
    load.end_without_failure(&drill, "a token comes and goes", &[])
        .await;
}

#[tokio::test]
async fn keys_move_to_another_token_as_theirs_goes_and_no_call_is_lost() {
    let drill = Drill::spawn(vec![Member::new("primary")], "hosts = 2\n")
        .up(2)
        .await;
    let load = drill.load().await;
    let random = random_bytes(&drill).await;
    let second = Member::new("second");
    for (member, name) in [(&second, "second"), (drill.token(), "primary")] {
        let before = drill.server.hosts();
        drill
            .reload("", &(member.section("hosts = 2\n") + &keys_in(name)))
            .await;
        drill.until_hosts(2, &before).await;
        load.goes_on(much(300)).await;
    }
    random.stop().await;
    load.end_without_failure(&drill, "keys move to another token as theirs goes", &[])
        .await;
}

/// Somebody who asks for random bytes, none of whose calls may fail.
struct RandomBytes {
    ended: Arc<AtomicBool>,
    caller: JoinSet<u64>,
}

async fn random_bytes(drill: &Drill) -> RandomBytes {
    let mut client = drill.server.mac().await;
    let ended = Arc::<AtomicBool>::default();
    let is_over = Arc::clone(&ended);
    let mut caller = JoinSet::new();
    caller.spawn(async move {
        let mut made = 0;
        while !is_over.load(Ordering::Relaxed) {
            let request = GenerateRandomRequest {
                number_of_bytes: Some(16),
            };
            client.generate_random(request).await.unwrap();
            made += 1;
        }
        made
    });
    RandomBytes { ended, caller }
}

impl RandomBytes {
    async fn stop(mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let made = self.caller.join_next().await.unwrap().unwrap();
        assert!(made > 10, "{made}");
    }
}

#[tokio::test]
async fn members_of_a_group_come_and_go_and_no_call_is_lost() {
    let drill = Drill::pair("").await;
    let load = drill.load().await;
    let third = Member::new("third");
    let of_group = |member: &Member| member.section("group = \"twins\"\nhosts = 1\n");
    let [first, second] = &drill.members[..] else {
        panic!("a pair")
    };
    for members in [
        vec![first],
        vec![first, &third],
        vec![&third],
        // One takes the only one's place in one step.
        vec![second],
        vec![first, second],
    ] {
        let sections: String = members.iter().map(|member| of_group(member)).collect();
        drill.reload("", &(sections + &KEYS())).await;
        until("as many hosts as tokens", || {
            (drill.server.hosts().len() == members.len()).then_some(())
        })
        .await;
        load.goes_on(much(200)).await;
    }
    load.end_without_failure(&drill, "members of a group come and go", &[])
        .await;
}

#[tokio::test]
async fn a_token_with_no_session_left_gives_those_of_the_old_hosts_to_the_new_ones() {
    let member = Member::new("primary");
    member.rules("session limit 4 shared");
    let drill = Drill::spawn(vec![member], "hosts = 1\nsessions = 2\n")
        .up(1)
        .await;
    let load = drill.load().await;
    let before = drill.server.hosts();
    let section = drill
        .token()
        .section("hosts = 1\nsessions = 2\ncall_timeout = \"7s\"\n");
    drill.reload("", &(section + &KEYS())).await;
    drill.until_hosts(1, &before).await;
    until("all the sessions that it is to have", || {
        (sessions::sessions(drill.token()) == 3).then_some(())
    })
    .await;
    load.goes_on(much(200)).await;
    load.end_without_failure(&drill, "settings for a token without sessions", &[])
        .await;
}

/// A stored key stays when its token is taken out of the configuration, and serves when it is back.
#[tokio::test]
async fn stored_keys_of_a_token_that_is_gone_are_unavailable_until_it_is_back() {
    let member = Member::new("primary");
    let store = member.token.store();
    let keys = KEYS();
    let drill = Drill::spawn_with(vec![member], "hosts = 1\n", &(keys.clone() + &store))
        .up(1)
        .await;
    let made = drill.server.create().await.unwrap();
    let mac = drill.server.mac_with(&made, b"x").await.unwrap();
    let second = Member::new("second");
    let primary = drill.token().section("hosts = 1\n");
    let hosts = drill.server.hosts();
    let only_second = second.section("hosts = 1\n") + &keys + &store;
    let load = drill.load().await;
    drill.reload("", &only_second).await;
    let refused = drill.server.mac_with(&made, b"x").await.unwrap_err();
    assert_status(
        &refused,
        Code::FailedPrecondition,
        "KMS_INVALID_STATE",
        "is unavailable",
    );
    drill.until_hosts(1, &hosts).await;
    // New keys are made where the configuration says now.
    let elsewhere = drill.server.create().await.unwrap();
    assert!(
        second.token.objects().len() > 2,
        "{:?}",
        second.token.objects()
    );
    let both = primary + &second.section("hosts = 1\n") + &keys_in("primary") + &store;
    drill.reload("new_keys = \"second\"\n", &both).await;
    assert_eq!(drill.server.mac_with(&made, b"x").await.unwrap(), mac);
    drill.server.mac_with(&elsewhere, b"x").await.unwrap();
    load.end_without_failure(&drill, "the token of stored keys goes and comes back", &[])
        .await;
}

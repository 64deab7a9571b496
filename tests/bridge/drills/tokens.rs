//! One token with two hosts.

use tonic::Code;

use super::*;
use crate::support::{PIN, assert_status, signal};

/// Faults that no caller may see, as often as it takes.
async fn no_call_fails(what: &str, settings: &str, rules: &[&str]) {
    let drill = Drill::start(settings).await;
    let front = drill.server.child.id();
    let load = drill.load().await;
    let mut healed = Vec::new();
    for rules in rules {
        drill.rules(rules);
        healed.push(load.goes_on(much(300)).await);
        // A fault that comes by chance may take its time.
        for rule in rules.lines() {
            drill.token().acts(rule, 0).await;
        }
    }
    drill.rules("");
    load.goes_on(200).await;
    load.end_without_failure(&drill, what, &healed).await;
    assert_eq!(drill.server.child.id(), front);
}

#[tokio::test]
async fn random_device_errors_cost_no_call() {
    let rules = ["return C_Sign CKR_DEVICE_ERROR probability 0.01"];
    no_call_fails("1 % CKR_DEVICE_ERROR", "", &rules).await;
}

#[tokio::test]
async fn a_session_that_is_busy_costs_no_call() {
    let rules = ["return C_SignInit CKR_OPERATION_ACTIVE every 20"];
    no_call_fails("busy sessions", "", &rules).await;
}

#[tokio::test]
async fn lost_sessions_cost_no_call() {
    let rules = [
        "sessions lost one",
        "sessions lost two",
        "sessions lost three",
    ];
    no_call_fails("sessions lost", "", &rules).await;
}

#[tokio::test]
async fn a_lost_login_costs_no_call() {
    let rules = ["login lost one", "login lost two", "login lost three"];
    no_call_fails("login lost", "", &rules).await;
}

#[tokio::test]
async fn a_module_that_crashes_costs_no_call() {
    let rules = [
        "crash C_Sign once 1",
        "crash C_SignInit once 2",
        "crash C_Sign once 3",
    ];
    no_call_fails("SIGSEGV in the module", "", &rules).await;
}

#[tokio::test]
async fn one_call_that_hangs_costs_no_call() {
    let settings = "call_timeout = \"500ms\"\n";
    let rules = ["hang C_Sign once 1", "hang C_Sign once 2"];
    no_call_fails("one session hangs", settings, &rules).await;
}

#[tokio::test]
async fn a_mac_of_wrong_length_is_nobody_s_mac() {
    let rules = ["mac wrong-length once", "mac truncated once"];
    no_call_fails("MACs of wrong length", "", &rules).await;
}

#[tokio::test]
async fn slots_that_move_cost_no_call() {
    let moved = "slot offset 7 at-initialize\nsessions lost one";
    let back = "sessions lost two";
    no_call_fails("slot ids move", "", &[moved, back]).await;
}

#[tokio::test]
async fn a_killed_host_costs_no_call() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    let mut healed = Vec::new();
    for _ in 0..5 {
        let serve = drill.logged("a host serves");
        signal(drill.server.hosts()[0], "KILL");
        healed.push(load.goes_on(much(200)).await);
        drill.until_logged("a host serves", serve).await;
    }
    load.end_without_failure(&drill, "host killed", &healed)
        .await;
}

#[tokio::test]
async fn handles_that_change_their_meaning_cost_no_wrong_mac() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    // With the sessions lost, as the standard foresees it: every handle dies with its generation.
    drill.rules("renumber on-session-loss\nsessions lost now");
    // Security: with this feature a host goes on with old handles, and the drill must see it.
    if cfg!(feature = "drill-unbound-handles") {
        until("a wrong MAC", || (load.wrong() > 0).then_some(())).await;
        println!("{} wrong MACs were caught", load.wrong());
        return;
    }
    let mut healed = vec![load.goes_on(much(300)).await];
    drill.rules("renumber at-initialize\nsessions lost again");
    healed.push(load.goes_on(much(300)).await);
    load.end_without_failure(&drill, "handles renumbered", &healed)
        .await;
}

#[tokio::test]
async fn a_poison_message_is_refused_and_kills_no_host_after_host() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    drill.rules("crash C_Sign when-message-contains 706f69736f6e"); // "poison"
    let mut client = drill.server.mac().await;
    let status = client.generate_mac(request(b"poison")).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "KEY_UNAVAILABLE", "");
    // The caller may be told before the log is.
    drill.until_logged("a host is replaced", 1).await;
    let crashes = drill.logged("a host is replaced");
    assert_eq!(crashes, 2, "two charges: {}", drill.server.log());
    let healed = load.goes_on(much(300)).await;
    // Both hosts have ended: on a busy machine the next ones are not there within a second.
    let failed = load.end("poison message", &[healed]).await;
    only(&failed, NO_HOST);
}

/// Takes the token away and brings it back, as often as it is said: callers are told at once, and
/// served again by themselves.
async fn away_and_back(what: &str, times: usize, pull: impl Fn(&Drill), plug: impl Fn(&Drill)) {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    let front = drill.server.child.id();
    let mut healed = Vec::new();
    let mut usage = Vec::new();
    for time in 0..times {
        let said = drill.logged("the token is unavailable");
        pull(&drill);
        drill.until_logged("the token is unavailable", said).await;
        plug(&drill);
        healed.push(load.goes_on(1).await);
        // Both hosts are back before the token goes again.
        drill.until_logged("the token is up", time + 1).await;
        load.goes_on(much(20)).await;
        if time == times / 4 || time + 1 == times {
            usage.push(Usage::of(front));
        }
    }
    let hosts: Vec<Usage> = drill.server.hosts().into_iter().map(Usage::of).collect();
    println!("front, early and late: {usage:?}; hosts: {hosts:?}");
    if let [early, .., late] = usage[..] {
        // One more looks at the files that are read again when they change, every two seconds.
        assert!(late.threads <= early.threads + 1, "{early:?} {late:?}");
        assert!(
            late.descriptors <= early.descriptors + 16,
            "{early:?} {late:?}"
        );
        assert!(late.kib < early.kib * 5 / 4 + 4096, "{early:?} {late:?}");
    }
    let failed = load.end(what, &healed).await;
    only(&failed, NO_HOST);
    assert_eq!(drill.server.child.id(), front);
    each_outage_is_said_once(&drill.server.log());
}

/// Many callers are told that the token is away. The log says it when it becomes so, whatever the token says
/// each time that it is asked; once a minute; and when it is over.
fn each_outage_is_said_once(log: &str) {
    let mut outages = 0;
    let mut said: Vec<&str> = Vec::new();
    for line in log.lines() {
        if line.contains("event=token_up") {
            assert!(
                line.contains(" hosts=") && line.contains(" after_s="),
                "{line}"
            );
            outages += usize::from(!said.is_empty());
            said.clear();
        }
        if line.contains("event=token_unavailable") && !line.contains(" age_s=") {
            said.push(line);
        }
        assert!(
            said.len() <= 1,
            "one outage, told more than once: {said:#?}"
        );
    }
    assert!(outages > 0 && said.is_empty(), "{log}");
    let calls = log.matches("event=call_failed").count();
    let minutes = log.matches("age_s=").count() + outages + 1;
    // Each exception that follows from the outage, once a minute.
    assert!(
        calls <= 3 * minutes,
        "{calls} calls in {minutes} minutes:\n{log}"
    );
}

#[tokio::test]
async fn a_hidden_token_is_said_at_once_and_serves_again_when_it_is_back() {
    let times = if long() { 100 } else { 3 };
    away_and_back(
        "token away and back",
        times,
        |drill| drill.rules("hide token"),
        |drill| drill.rules(""),
    )
    .await;
}

#[tokio::test]
async fn a_token_whose_folder_is_moved_away_serves_again_when_it_is_back() {
    let times = if long() { 20 } else { 2 };
    away_and_back(
        "token folder moved away and back",
        times,
        |drill| drill.token().pull(),
        |drill| drill.token().plug(),
    )
    .await;
}

#[tokio::test]
async fn a_token_that_is_away_at_the_start_serves_when_it_appears() {
    let member = Member::new("primary");
    member.rules("hide token");
    let mut drill = Drill::spawn(vec![member], "hosts = 2\n");
    drill.server.until_log("listening").await;
    let mut client = drill.server.mac().await;
    let status = client.generate_mac(request(b"x")).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "KEY_UNAVAILABLE", "");
    drill.rules("");
    let load = Load::begin(&drill.server).await;
    let healed = load.goes_on(1).await;
    load.goes_on(much(200)).await;
    let failed = load.end("token away at start", &[healed]).await;
    only(&failed, NO_HOST);
}

#[tokio::test]
async fn a_token_that_only_hangs_is_said_at_once_after_a_while_and_closes_its_breaker_itself() {
    let drill = Drill::start("call_timeout = \"500ms\"\n").await;
    let load = drill.load().await;
    drill.rules("hang C_Sign");
    drill.until_logged("the token is unavailable", 0).await;
    // From now on nobody waits for it.
    let mut client = drill.server.mac().await;
    for _ in 0..20 {
        // Who had waited until the deadline would be told DEPENDENCY_TIMEOUT.
        let status = client.generate_mac(request(b"x")).await.unwrap_err();
        assert_status(&status, Code::Unavailable, "KEY_UNAVAILABLE", "");
    }
    drill.rules("");
    let healed = load.goes_on(1).await;
    load.goes_on(much(300)).await;
    let failed = load.end("all sessions hang", &[healed]).await;
    // Those who called before it was known had their deadline.
    let strange = failed.keys().filter(|said| {
        !said.starts_with("Unavailable KEY_UNAVAILABLE")
            && !said.starts_with("DeadlineExceeded DEPENDENCY_TIMEOUT")
    });
    assert_eq!(strange.count(), 0, "{failed:?}");
}

/// `systemctl reload` can come before the start is over.
#[tokio::test]
async fn a_hangup_during_the_start_is_taken_after_it() {
    let member = Member::new("primary");
    let slow = "delay C_Initialize 1s";
    member.rules(slow);
    let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let head = acted::head(&member);
    let config = format!("{head}{}{key}", member.section(""));
    let mut server = member.token.spawn(&config);
    member.acts(slow, 0).await;
    signal(server.child.id(), "HUP");
    server.until_log("reloaded what=SIGHUP").await;
    assert!(server.child.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn a_module_that_hangs_at_its_start_is_not_waited_for() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    drill.rules("hang C_Initialize\nsessions lost now");
    drill.until_logged("the token is unavailable", 0).await;
    let mut client = drill.server.mac().await;
    // Who had waited until the deadline would be told DEPENDENCY_TIMEOUT.
    let status = client.generate_mac(request(b"x")).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "KEY_UNAVAILABLE", "");
    drill.rules("");
    let healed = load.goes_on(1).await;
    load.goes_on(much(100)).await;
    let failed = load.end("C_Initialize hangs", &[healed]).await;
    only(&failed, NO_HOST);
}

#[tokio::test]
async fn a_changed_pin_is_tried_once_and_the_hosts_that_are_logged_in_go_on() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    drill.token().token.inside(&format!("pin {PIN} 43214321\n"));
    let logins = drill.token().asked("C_Login");
    signal(drill.server.hosts()[0], "KILL");
    drill.until_logged("the token is degraded", 0).await;
    load.goes_on(much(200)).await;
    assert_eq!(drill.token().asked("C_Login"), logins + 1, "one try");
    drill.token().token.write_pin("43214321");
    let up = drill.logged("the token is up");
    drill.until_logged("the token is up", up).await;
    let healed = load.goes_on(much(200)).await;
    assert_eq!(drill.token().asked("C_Login"), logins + 2);
    load.end_without_failure(&drill, "PIN changed", &[healed])
        .await;
}

#[tokio::test]
async fn each_generation_logs_in_once() {
    let drill = Drill::start("").await;
    let load = drill.load().await;
    for word in ["one", "two", "three"] {
        drill.rules(&format!("sessions lost {word}"));
        load.goes_on(300).await;
    }
    load.end_without_failure(&drill, "one login a generation", &[])
        .await;
    let (initialised, logins) = (
        drill.token().asked("C_Initialize"),
        drill.token().asked("C_Login"),
    );
    println!("{initialised} generations, {logins} logins");
    assert!(logins <= initialised);
    assert!(initialised > 2, "no generation ended");
}

#[tokio::test]
async fn idle_sessions_are_asked_for_a_sign_of_life_and_healed_before_a_caller_comes() {
    let drill = Drill::start("probe_interval = \"100ms\"\n").await;
    let mut client = drill.server.mac().await;
    client.generate_mac(request(b"x")).await.unwrap();
    let looks = drill.token().asked("C_GetSessionInfo");
    until("a sign of life", || {
        (drill.token().asked("C_GetSessionInfo") > looks + 2).then_some(())
    })
    .await;
    // Nobody calls, and yet a token that hangs is found, and a lost session replaced.
    let serve = drill.logged("a host serves");
    drill.rules("sessions lost now");
    drill.until_logged("a host serves", serve + 1).await;
    client.generate_mac(request(b"x")).await.unwrap();
    assert_eq!(drill.logged("a call failed"), 0);
}

#[tokio::test]
async fn no_sign_of_life_is_asked_for_when_the_interval_is_0() {
    let drill = Drill::start("probe_interval = \"0s\"\n").await;
    let mut client = drill.server.mac().await;
    client.generate_mac(request(b"x")).await.unwrap();
    let looks = drill.token().asked("C_GetTokenInfo");
    let load = drill.load().await;
    load.goes_on(300).await;
    load.end_without_failure(&drill, "no probes", &[]).await;
    assert_eq!(drill.token().asked("C_GetTokenInfo"), looks);
}

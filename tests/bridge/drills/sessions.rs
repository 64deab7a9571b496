//! The sessions of a token: each idle one gives signs of life, and where there are few all hosts share
//! them.

use super::*;
use crate::support::signal;

#[tokio::test]
async fn each_idle_session_gives_signs_of_life_of_its_own() {
    let settings = "hosts = 1\nsessions = 4\nprobe_interval = \"100ms\"\n";
    let drill = Drill::spawn(vec![Member::new("primary")], settings)
        .up(1)
        .await;
    let looks = || {
        let mut looks: BTreeMap<String, u64> = BTreeMap::new();
        for line in drill.token().journal() {
            let session = line.split(' ').find(|word| word.starts_with("session="));
            *looks.entry(session.unwrap().to_owned()).or_default() += 1;
        }
        looks
    };
    drill.rules("journal C_GetSessionInfo\nreturn C_Sign CKR_DEVICE_ERROR once when-session 3");
    // The first is the login session; one of the others fails, and is replaced.
    until("ten rounds", || {
        (looks().values().max().copied().unwrap_or(0) > 10).then_some(())
    })
    .await;
    let looks = looks();
    println!("{looks:?}");
    let lively = looks.values().filter(|count| **count > 5).count();
    assert_eq!(lively, 4, "{looks:?}");
    let (least, most) = (
        looks.values().filter(|count| **count > 5).min(),
        looks.values().max(),
    );
    assert!(most.unwrap() - least.unwrap() <= 2, "{looks:?}");
    // Nobody called, and no caller meets the session that failed.
    assert_eq!(drill.logged("a host is replaced"), 0);
    drill.rules("");
}

/// How many sessions all hosts have now.
pub(super) fn sessions(member: &Member) -> u64 {
    let folder = fs::read_dir(member.token.path(".")).unwrap();
    let files = folder.map(|file| file.unwrap().path());
    files
        .filter(|path| path.display().to_string().contains("control.process-"))
        // A file goes with its process.
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|count| count.trim().parse().unwrap_or(0))
        .sum()
}

#[tokio::test]
async fn hosts_share_the_sessions_of_a_token_that_says_how_many_it_has() {
    let member = Member::new("primary");
    let limit = "session limit 10 shared reported";
    member.rules(limit);
    let drill = Drill::spawn(vec![member], "hosts = 2\nsessions = 8\n");
    let drill = drill.up(2).await;
    let load = drill.load().await;
    // Two login sessions, and three of each host for MACs.
    assert_eq!(sessions(drill.token()), 8);
    for _ in 0..3 {
        let serve = drill.logged("a host serves");
        signal(drill.server.hosts()[0], "KILL");
        drill.until_logged("a host serves", serve).await;
    }
    load.goes_on(much(200)).await;
    load.end_without_failure(&drill, "few sessions, as the token says", &[])
        .await;
    // A killed host's sessions are gone before its successor opens its own.
    let log = drill.server.log();
    assert_eq!(drill.token().applied(limit), 0, "one was refused:\n{log}");
    let line = "they share them token=primary sessions=10 hosts=2 each=3";
    assert_eq!(drill.logged(line), 1, "{log}");
}

#[tokio::test]
async fn hosts_share_the_sessions_of_a_token_that_refuses_one_more() {
    let member = Member::new("primary");
    let limit = "session limit 10 shared";
    member.rules(limit);
    let mut drill = Drill::spawn(vec![member], "hosts = 2\nsessions = 8\n");
    drill.server.until_log("listening").await;
    let load = Load::begin(&drill.server).await;
    // Without it the first host has nine, and the second never comes up.
    until("both hosts, and some left", || {
        let serving = drill.logged("a host serves") - drill.logged("a host has ended");
        (serving == 2 && sessions(drill.token()) < 10).then_some(())
    })
    .await;
    load.goes_on(much(200)).await;
    load.end_without_failure(&drill, "few sessions, as it turns out", &[])
        .await;
    assert!(drill.token().applied(limit) > 0);
    assert_eq!(drill.logged("they share them"), 1, "{}", drill.server.log());
}

/// A token with room for the login session and one more: a session is closed before another is opened.
#[tokio::test]
async fn a_lost_session_is_closed_before_its_successor_is_opened() {
    let member = Member::new("primary");
    let limit = "session limit 2 shared reported";
    let lost = "return C_Sign CKR_DEVICE_ERROR every 20";
    member.rules(&format!("{limit}\n{lost}"));
    let drill = Drill::spawn(vec![member], "hosts = 1\nsessions = 1\n");
    let drill = drill.up(1).await;
    let load = drill.load().await;
    // To prove a key one more is asked for, and the login session is used where there is none.
    let refused = drill.token().applied(limit);
    load.goes_on(much(200)).await;
    load.end_without_failure(&drill, "one session, which fails", &[])
        .await;
    let log = drill.server.log();
    assert_eq!(drill.token().applied(limit), refused, "{log}");
    drill.rules("");
}

//! kill -9: what was acknowledged is there, and nothing is there by halves.

use std::collections::BTreeMap;

use hsmac::store::{Prefix, Store};

use crate::{
    Place, name,
    tool::{CALLS, Tool},
};

#[tokio::test]
async fn what_was_acknowledged_outlives_kill_9() {
    let rounds = if std::env::var_os("TEST_LONG").is_some() {
        400
    } else {
        40
    };
    let place = Place::new();
    let path = place.path("catalogue.db");
    let (mut acknowledged, mut latest) = (0, 0);
    for round in 0..rounds {
        let mut tool = Tool::start(&path);
        assert_eq!(tool.say("open"), format!("ok {latest}"));
        let mut told = vec![tool.say(&format!("loop {}", 1 + round % 6))];
        // Longer lives now and then, so that the log is emptied into the database under way too.
        let lines = if round % 10 == 9 { 700 } else { round * 3 % 50 };
        for _ in 0..lines {
            told.push(tool.line().unwrap());
        }
        told.extend(tool.kill());
        acknowledged += told.len();

        let store = place.open();
        latest = store.revision().await.unwrap().0;
        let told: Vec<(u32, u64)> = told
            .iter()
            .map(|line| {
                let (writer, revision) = line.split_once(' ').unwrap();
                (writer.parse().unwrap(), revision.parse().unwrap())
            })
            .collect();
        let highest = told.iter().map(|(_, revision)| *revision).max().unwrap();
        assert!(latest >= highest, "{latest} is there, {highest} was told");
        everything_is_whole(&store, &told).await;
        // The next round begins with other names.
        clear(&store).await;
        latest = store.revision().await.unwrap().0;
        store.close().await;
    }
    println!("{acknowledged} acknowledged changes in {rounds} rounds");
}

async fn everything_is_whole(store: &Store, told: &[(u32, u64)]) {
    let mut steps: BTreeMap<u32, u64> = BTreeMap::new();
    for (writer, _) in told {
        *steps.entry(*writer).or_default() += 1;
    }
    let count = async |side: &str, writer: u32| {
        let under = Prefix::new(&format!("{side}/{writer}/")).unwrap();
        let records = store.list(&under, None, usize::MAX).await.unwrap();
        u64::try_from(records.len()).unwrap()
    };
    for writer in 0..6 {
        let left = count("left", writer).await;
        assert_eq!(left, count("right", writer).await, "no half of a change");
        let told = steps.get(&writer).copied().unwrap_or_default();
        assert!(left >= told, "writer {writer}: {told} told, {left} there");
        let at = store.read(&name(&format!("at/{writer}"))).await.unwrap();
        let at = at.map(|record| {
            String::from_utf8_lossy(&record.value)
                .parse::<u64>()
                .unwrap()
        });
        assert_eq!(at.map_or(0, |step| step + 1), left);
    }
}

async fn clear(store: &Store) {
    let all = store.list(&Prefix::all(), None, usize::MAX).await.unwrap();
    let change = all
        .into_iter()
        .fold(hsmac::store::Change::new(), |change, record| {
            change.delete(record.name, hsmac::store::Expect::At(record.revision))
        });
    store.commit(change).await.unwrap();
}

/// The process is killed at each system call that changes a file, one after the other: while it
/// makes a catalogue, and while it writes to one, empties its log and closes it.
#[tokio::test]
async fn no_system_call_is_a_bad_moment_to_die() {
    let made = dies_at_every_call("", &["open", "put a 1", "close"]).await;
    // By path, since strace counts each thread's calls: only the writer's are of these files.
    let lines = [
        "open",
        "put a 1",
        "fill b 20000",
        "put c 3",
        "close",
        "open",
        "put d 4",
        "close",
    ];
    let written = dies_at_every_call("-P \"$0\" -P \"$0-wal\"", &lines).await;
    println!("killed at {made} calls of a first start and at {written} of a writer");
    assert!(made > 30 && written > 30, "strace kills");
}

async fn dies_at_every_call(paths: &str, lines: &[&str]) -> usize {
    let mut died = 0;
    for call in CALLS {
        for moment in 1.. {
            assert!(moment < 1000, "it never comes to its end");
            if lives_through(
                paths,
                &format!("{call}:signal=KILL:when={moment}"),
                call,
                lines,
            )
            .await
            {
                break;
            }
            died += 1;
        }
    }
    died
}

async fn lives_through(paths: &str, injected: &str, call: &str, lines: &[&str]) -> bool {
    let place = Place::new();
    let path = place.path("catalogue.db");
    if !paths.is_empty() {
        place.open().close().await;
    }
    let strace = format!(
        "exec strace -f -qq -o /dev/null {paths} -e trace={call} -e inject={injected} \"$@\""
    );
    let mut tool = Tool::in_shell(&strace, &path);
    let mut told = Vec::new();
    for line in lines {
        let Some(answer) = tool.try_say(line) else {
            break;
        };
        assert!(answer.starts_with("ok"), "{answer}");
        told.push(*line);
    }
    tool.end();

    let store = place.open();
    for line in &told {
        if let [verb @ ("put" | "fill"), which, value] = line.split(' ').collect::<Vec<_>>()[..] {
            let record = store.read(&name(which)).await.unwrap();
            let found = record.unwrap_or_else(|| panic!("{injected}: {line} is lost"));
            match verb {
                "put" => assert_eq!(found.value, value),
                _ => assert_eq!(found.value.len().to_string(), value),
            }
        }
    }
    let revision = usize::try_from(store.revision().await.unwrap().0).unwrap();
    let puts = told.iter().filter(|line| line.contains(' ')).count();
    assert!(
        (puts..=puts + 1).contains(&revision),
        "{puts} told, {revision} there"
    );
    store.close().await;
    told.len() == lines.len()
}

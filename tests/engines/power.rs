//! Power loss: what is on the disk when a change is answered. kill -9 does not show it, since the
//! kernel outlives it; the order of system calls does.

use std::{collections::BTreeSet, fs};

use crate::{Place, tool::Tool};

#[test]
fn a_change_is_on_the_disk_before_it_is_answered() {
    let place = Place::new();
    let (log, path) = (place.path("calls"), place.path("catalogue.db"));
    let mut tool = Tool::in_shell(
        &format!(
            "exec strace -f -y -qq -o {} -s 8 -e signal=none \
             -e trace=openat,rename,unlink,write,pwrite64,ftruncate,fsync,fdatasync \"$@\"",
            log.display()
        ),
        &path,
    );
    assert_eq!(tool.say("open"), "ok 0");
    for number in 1..=40 {
        // Some of them fill the log, so that it is emptied and begun anew between answers.
        let line = format!(
            "fill a/{number} {}",
            if number % 4 == 0 { 900_000 } else { 100 }
        );
        assert_eq!(tool.say(&line), format!("ok {number}"));
    }
    assert_eq!(tool.say("close"), "ok");
    tool.end();

    let folder = place
        .dir
        .path()
        .canonicalize()
        .unwrap()
        .display()
        .to_string();
    let (database, wal) = (
        format!("<{folder}/catalogue.db>"),
        format!("<{folder}/catalogue.db-wal>"),
    );
    let mut unsynced = BTreeSet::new();
    let (mut answers, mut emptied) = (0, 0);
    for call in fs::read_to_string(&log).unwrap().lines() {
        // Unfinished calls stand where they began: a write counts from there, a sync from its end.
        let begins = |verb: &str| call.contains(&format!(" {verb}("));
        let done = !call.contains("<unfinished");
        if call.contains("O_CREAT") && call.contains("catalogue.db") && !call.contains(".lock") {
            unsynced.insert("folder");
        } else if begins("rename") {
            assert!(
                !unsynced.contains("database"),
                "named before it was synced: {call}"
            );
            unsynced.insert("folder");
        } else if begins("pwrite64") && call.contains(".db.new>")
            || begins("pwrite64") && call.contains(&database)
        {
            assert!(!unsynced.contains("wal"), "the log must come first: {call}");
            unsynced.insert("database");
        } else if begins("pwrite64") && call.contains(&wal) {
            unsynced.insert("wal");
            // The log begins anew: what it had must be in the database for good.
            if call.contains(", 32, 0)") {
                emptied += 1;
                assert!(
                    !unsynced.contains("database"),
                    "begun anew too early: {call}"
                );
            }
        } else if (begins("fsync") || begins("fdatasync")) && done {
            if call.contains(&wal) {
                unsynced.remove("wal");
            } else if call.contains(&database) || call.contains(".db.new>") {
                unsynced.remove("database");
            } else if call.contains(&format!("<{folder}>")) {
                unsynced.remove("folder");
            }
        } else if call.contains("\"ok ") && begins("write") {
            answers += 1;
            assert!(
                !unsynced.contains("wal"),
                "answered before its log was synced: {call}"
            );
            // At the first answer nothing was written to the log yet, which is made with the first
            // change.
            if answers > 1 {
                assert!(
                    !unsynced.contains("folder"),
                    "answered before the folder was synced: {call}"
                );
            }
        }
    }
    println!("{answers} answers, the log begun {emptied} times");
    assert_eq!(answers, 41);
    assert!(emptied > 1, "the log was emptied under way");
}

/// A disk that refuses to sync: nothing is acknowledged that may be gone, and after it is well again
/// the store serves without a restart.
#[test]
fn a_failed_sync_is_no_success() {
    for failing in ["1", "2", "3", "2..4", "4..6"] {
        let place = Place::new();
        let path = place.path("catalogue.db");
        let mut plain = Tool::start(&path);
        assert_eq!(plain.say("open"), "ok 0");
        assert_eq!(plain.say("put first 1"), "ok 1");
        assert_eq!(plain.say("close"), "ok");
        plain.end();
        let mut tool = Tool::in_shell(
            &format!(
                "exec strace -f -qq -o /dev/null -P \"$0-wal\" -e trace=fsync,fdatasync \
                 -e inject=fsync,fdatasync:error=EIO:when={failing} \"$@\""
            ),
            &path,
        );
        assert_eq!(tool.say("open"), "ok 1");
        let mut told = Vec::new();
        let mut faults = 0;
        for number in 0..8 {
            let answer = tool.say(&format!("put a/{number} x"));
            if let Some(revision) = answer.strip_prefix("ok ") {
                told.push((number, revision.to_owned()));
            } else {
                assert!(answer.starts_with("fault the store "), "{answer}");
                // What is said to be not there is not there.
                if answer.starts_with("fault the store is away") {
                    assert_eq!(tool.say(&format!("read a/{number}")), "none", "{failing}");
                }
                faults += 1;
            }
        }
        println!("sync {failing} fails: {faults} faults, {} made", told.len());
        assert!(told.len() >= 4, "it serves again");
        tool.end();
        let mut after = Tool::start(&path);
        assert!(after.say("open").starts_with("ok "));
        for (number, _) in told {
            assert_eq!(after.say(&format!("read a/{number}")), "ok x");
        }
        assert_eq!(after.say("read first"), "ok 1");
    }
}

//! What a disk can do to a catalogue, and what others do with its file.

use std::{fs, os::unix::fs::PermissionsExt as _};

use hsmac::store::{Expect, Prefix, Record, Store};
use rusqlite::Connection;

use crate::{Place, name, put, tool::Tool};

/// A tmpfs of one megabyte with a file in it that can make room.
const SMALL_DISK: &str = "\
    mount -t tmpfs -o size=1m none \"${0%/*}\" && \
    head -c 300000 /dev/zero >\"${0%/*}/ballast\" && exec \"$@\"";

#[test]
fn a_full_disk_is_a_clear_fault_and_nothing_is_lost() {
    let place = Place::new();
    let path = place.path("catalogue.db");
    let mut tool = Tool::in_namespace(SMALL_DISK, &path);
    assert_eq!(tool.say("open"), "ok 0");
    let mut kept = 0;
    let fault = loop {
        let answer = tool.say(&format!("fill kept/{kept} 20000"));
        if !answer.starts_with("ok") {
            break answer;
        }
        kept += 1;
        assert!(kept < 100, "the disk is never full");
    };
    println!("{kept} records, then: {fault}");
    assert!(fault.starts_with("fault the store is away: "), "{fault}");
    assert!(fault.contains("full"), "{fault}");
    assert!(kept > 3);

    // It still reads, and says the same again; what was refused is not there.
    let intact = |tool: &mut Tool| {
        for number in 0..kept {
            assert_eq!(tool.say(&format!("read kept/{number}")).len(), 3 + 20_000);
        }
        assert_eq!(tool.say(&format!("read kept/{kept}")), "none");
    };
    intact(&mut tool);
    assert!(tool.say("fill more 200000").contains("full"));
    intact(&mut tool);

    // There is room again: it serves again, without a restart.
    let ballast = place.path("ballast");
    assert_eq!(tool.say(&format!("remove {}", ballast.display())), "ok");
    assert_eq!(tool.say("put more 1"), format!("ok {}", kept + 1));
    intact(&mut tool);
    assert_eq!(tool.say("close"), "ok");
    assert_eq!(tool.say("open"), format!("ok {}", kept + 1));
    intact(&mut tool);
    assert_eq!(tool.say("read more"), "ok 1");
}

#[test]
fn a_disk_that_is_full_at_the_first_start_leaves_nothing_half_made() {
    let place = Place::new();
    // All of it but what the name of a file needs.
    let script = SMALL_DISK
        .replace("300000", "2000000")
        .replace("ballast\" &&", "ballast\" 2>/dev/null;");
    let mut tool = Tool::in_namespace(&script, &place.path("catalogue.db"));
    let refused = tool.say("open");
    assert!(
        refused.starts_with("away ") && refused.contains("full"),
        "{refused}"
    );
    let ballast = place.path("ballast");
    assert_eq!(tool.say(&format!("remove {}", ballast.display())), "ok");
    assert_eq!(tool.say("open"), "ok 0");
    assert_eq!(tool.say("put a 1"), "ok 1");
}

#[test]
fn a_read_only_folder_is_said_so() {
    for first in [
        "",
        "printf 'open\\nput a 1\\nclose\\n' | \"$@\" >/dev/null && ",
    ] {
        let place = Place::new();
        let folder = "\"${0%/*}\"";
        let script = format!(
            "mount -t tmpfs -o size=1m none {folder} && {first} \
             mount -o remount,ro {folder} && exec \"$@\""
        );
        let mut tool = Tool::in_namespace(&script, &place.path("catalogue.db"));
        let refused = tool.say("open");
        assert!(refused.starts_with("configuration "), "{refused}");
        assert!(
            refused.contains("catalogue.db") && refused.contains("Read-only"),
            "{refused}"
        );
    }
}

#[test]
fn a_place_that_cannot_be_is_said_so() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.sqlite.path = place.path("nowhere/catalogue.db");
    let refused = Store::open(&settings).unwrap_err().to_string();
    assert!(
        refused.contains("there is no folder") && refused.contains("nowhere"),
        "{refused}"
    );
    settings.sqlite.path = place.dir.path().into();
    let refused = Store::open(&settings).unwrap_err().to_string();
    assert!(refused.ends_with("is not a file"), "{refused}");
    settings.sqlite.path = place.path("link.db");
    std::os::unix::fs::symlink("/nowhere/catalogue.db", place.path("link.db")).unwrap();
    let refused = Store::open(&settings).unwrap_err().to_string();
    assert!(
        refused.ends_with("is a link to a file that is not there"),
        "{refused}"
    );
}

#[tokio::test]
async fn another_program_s_file_is_left_alone() {
    let place = Place::new();
    let path = place.path("catalogue.db");
    let database = |version: i32, application: i32| {
        let _ = fs::remove_file(&path);
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
        connection
            .pragma_update(None, "user_version", version)
            .unwrap();
        connection
            .pragma_update(None, "application_id", application)
            .unwrap();
        drop(connection);
        fs::read(&path).unwrap()
    };
    fs::write(&path, "a text of somebody's, long enough").unwrap();
    let text = fs::read(&path).unwrap();
    assert!(
        place
            .refusal()
            .ends_with("is no hsmac catalogue, nor any database")
    );
    assert_eq!(fs::read(&path).unwrap(), text);
    for (version, application) in [(0, 0), (1, 0), (1, 7)] {
        let before = database(version, application);
        let refused = place.refusal();
        assert!(
            refused.ends_with("is no hsmac catalogue, but another program's database"),
            "{refused}"
        );
        assert_eq!(fs::read(&path).unwrap(), before, "not a byte of it changes");
    }
}

#[tokio::test]
async fn a_newer_version_s_file_is_refused_with_both_versions() {
    let place = Place::new();
    place.open().close().await;
    let connection = Connection::open(place.path("catalogue.db")).unwrap();
    connection.pragma_update(None, "user_version", 7).unwrap();
    drop(connection);
    let refused = place.refusal();
    assert!(
        refused.contains("its schema is version 7, this hsmac knows version 1 and older"),
        "{refused}"
    );
}

async fn filled(place: &Place) -> Vec<Record> {
    let store = place.open();
    for number in 0..200 {
        let change = put(
            &format!("key/{number}"),
            &"v".repeat(number * 7),
            Expect::Absent,
        );
        store.commit(change).await.unwrap();
    }
    let records = store.list(&Prefix::all(), None, usize::MAX).await.unwrap();
    store.close().await;
    records
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let place = Place::new();
    filled(&place).await;
    let path = place.path("catalogue.db");
    let whole = fs::read(&path).unwrap();
    let half = whole.len() / 2;
    for length in [0, 1, 99, 4095, 4096, half, half + 1, whole.len() - 4096] {
        fs::write(&path, &whole[..length]).unwrap();
        let opened = Store::open(&place.settings()).map(|_| ());
        let refused = match opened {
            Ok(()) => panic!(
                "{length} of {} bytes are taken for a catalogue",
                whole.len()
            ),
            Err(fault) => fault.to_string(),
        };
        assert!(
            refused.contains("is no hsmac catalogue") || refused.contains("is damaged"),
            "{length}: {refused}"
        );
        let left = fs::read(&path).unwrap().len();
        assert_eq!(left, length, "nothing is made of what is left");
    }
    fs::remove_file(&path).unwrap();
    fs::write(place.path("catalogue.db-wal"), "x").unwrap();
    let refused = place.refusal();
    assert!(refused.contains("is missing, but"), "{refused}");
}

#[tokio::test]
async fn no_flipped_bit_is_served() {
    let place = Place::new();
    let records = filled(&place).await;
    let path = place.path("catalogue.db");
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for step in 0..400 {
        let mut damaged = whole.clone();
        let at = step * 7919 % whole.len();
        damaged[at] ^= 1 << (step % 8);
        fs::write(&path, &damaged).unwrap();
        let store = match Store::open(&place.settings()) {
            Ok(store) => store,
            Err(fault) => {
                let text = fault.to_string();
                assert!(text.contains("catalogue.db"), "{text}");
                refused += 1;
                continue;
            }
        };
        // Where nothing is kept, a bit may be what it likes.
        let found = store.list(&Prefix::all(), None, usize::MAX).await.unwrap();
        assert_eq!(found, records, "byte {at}");
        store.close().await;
    }
    println!("{refused} of 400 flipped bits were refused at the start, the others touch nothing");
    assert!(refused > 100, "{refused}");
}

#[tokio::test]
async fn one_process_at_a_time() {
    let place = Place::new();
    let path = place.path("catalogue.db");
    let link = place.path("link.db");
    let store = place.open();
    store.commit(put("a", "1", Expect::Absent)).await.unwrap();
    let mut other = Tool::start(&path);
    let mine = std::process::id();
    assert_eq!(
        other.say("open"),
        format!(
            "configuration {}: process {mine} has the catalogue open",
            path.display()
        )
    );
    // By another name it is the same file.
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut by_link = Tool::start(&link);
    assert!(by_link.say("open").contains(&format!("process {mine} has")));
    assert!(
        place.refusal().contains(&format!("process {mine} has")),
        "within one process too"
    );

    store.close().await;
    assert_eq!(other.say("open"), "ok 1");
    assert!(
        place
            .refusal()
            .contains(&format!("process {} has", other.id()))
    );
    other.kill();
    assert_eq!(
        place.open().read(&name("a")).await.unwrap().unwrap().value,
        "1"
    );
}

/// Security: nobody but its owner reads the catalogue, whatever the umask.
#[test]
fn files_are_private_whatever_the_umask() {
    for umask in ["0000", "0022", "0777"] {
        let place = Place::new();
        let script = format!("umask {umask}; exec \"$@\"");
        let mut tool = Tool::in_shell(&script, &place.path("catalogue.db"));
        assert_eq!(tool.say("open"), "ok 0");
        assert_eq!(tool.say("put a 1"), "ok 1");
        for file in [
            "catalogue.db",
            "catalogue.db-wal",
            "catalogue.db-shm",
            "catalogue.db.lock",
        ] {
            let mode = fs::metadata(place.path(file)).unwrap().permissions().mode() & 0o7777;
            let wanted = if file.ends_with("lock") {
                mode & 0o600
            } else {
                0o600
            };
            assert_eq!(mode, wanted, "umask {umask}: {file} has {mode:04o}");
        }
        assert_eq!(tool.say("close"), "ok");
        // Somebody was careless.
        let careless = fs::Permissions::from_mode(0o644);
        fs::set_permissions(place.path("catalogue.db"), careless).unwrap();
        assert_eq!(tool.say("open"), "ok 1");
        let mended = fs::metadata(place.path("catalogue.db")).unwrap();
        assert_eq!(mended.permissions().mode() & 0o7777, 0o600);
    }
}

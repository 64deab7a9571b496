//! `hsmac store check | backup | restore | confirm`.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use hsmac::store::{Change, Expect, Prefix, Restored, Store};

use crate::{
    Place, name, put,
    tool::{CALLS, Tool},
};

impl Place {
    /// Runs `hsmac store …` and gives its exit code and all that it said.
    fn store(&self, arguments: &[&str]) -> (i32, String) {
        let config = self.path("hsmac.toml");
        if !config.exists() {
            fs::write(self.path("module.so"), "").unwrap();
            let text = "account = \"111122223333\"\nregion = \"us-west-2\"\n\
                [grpc]\nlisten = \"127.0.0.1:0\"\nanonymous = \"arn:aws:iam::111122223333:root\"\n\
                [token.a]\nuri = \"pkcs11:token=a?module-path=module.so\"\n\
                [store.sqlite]\npath = \"catalogue.db\"\n";
            fs::write(&config, text).unwrap();
        }
        let output = Command::new(env!("CARGO_BIN_EXE_hsmac"))
            .arg("store")
            .args(arguments)
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let folder = format!("{}/", self.dir.path().display());
        let said = String::from_utf8(said).unwrap().replace(&folder, "");
        (output.status.code().unwrap(), said)
    }

    fn names(&self, ends: &str) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains(ends))
            .collect();
        found.sort();
        found
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn check_says_what_is_there() {
    let place = Place::new();
    let (code, said) = place.store(&["check"]);
    assert_eq!(code, 78);
    assert_eq!(
        said,
        "hsmac: catalogue.db: there is no catalogue yet; hsmac serve makes it\n"
    );
    assert!(!place.path("catalogue.db").exists(), "check makes nothing");

    let store = place.open();
    let change = Change::new()
        .put(name("key/1/a"), "{}", Expect::Absent)
        .put(name("key/1/b"), "{}", Expect::Absent)
        .put(name("alias/1/alias/a"), "{}", Expect::Absent)
        .put(name("clock"), "{}", Expect::Absent);
    store.commit(change).await.unwrap();
    let mine = std::process::id();
    let good = "catalogue  catalogue.db: good\n  schema    version 1\n  revision  1\n  \
                records   1 alias, 1 clock, 2 key\n";
    assert_eq!(
        place.store(&["check"]),
        (0, format!("{good}  in use    by process {mine}\n")),
        "what is in the log counts"
    );
    store.close().await;
    assert_eq!(place.store(&["check"]), (0, good.into()));

    let path = place.path("catalogue.db");
    let mut bytes = fs::read(&path).unwrap();
    // Of the pages the second begins with the records.
    bytes[4096] ^= 0xff;
    fs::write(&path, bytes).unwrap();
    let (code, said) = place.store(&["check"]);
    assert_eq!(code, 78);
    assert!(
        said.starts_with("hsmac: catalogue.db is damaged ("),
        "{said}"
    );
    assert!(said.contains("hsmac store restore"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_one_moment_and_disturbs_nobody() {
    let place = Place::new();
    let store = place.open();
    let writer = store.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::spawn(async move {
        let mut steps = 0_u32;
        while stopped.try_recv().is_err() {
            let both = put("left", &steps.to_string(), Expect::Any)
                .put(name("right"), steps.to_string(), Expect::Any)
                .put(name(&format!("n/{steps}")), "x".repeat(500), Expect::Absent);
            writer.commit(both).await.unwrap();
            steps += 1;
        }
        steps
    });
    let mut last = 0;
    for round in 0..5 {
        let to = place.path(&format!("backup-{round}.db"));
        let (code, said) = place.store(&["backup", to.to_str().unwrap()]);
        assert_eq!(code, 0, "{said}");
        assert_eq!(
            mode(&to),
            0o600,
            "Security: a backup is as private as the catalogue"
        );
        let mut settings = place.settings();
        settings.sqlite.path = to.clone();
        let found = hsmac::store::check(&settings).unwrap();
        assert!(found.revision.0 >= last, "later backups have no less");
        last = found.revision.0;
        assert_eq!(found.restored, None);
        // Opened by itself, to compare what is in it.
        let copy = Store::open(&settings).unwrap();
        let value = async |which| copy.read(&name(which)).await.unwrap().map(|one| one.value);
        assert_eq!(value("left").await, value("right").await, "one moment");
        let under = Prefix::new("n/").unwrap();
        let steps = copy.list(&under, None, usize::MAX).await.unwrap().len();
        assert_eq!(steps as u64, last, "each change left one");
        copy.close().await;
    }
    stop.send(()).unwrap();
    let steps = writing.await.unwrap();
    assert_eq!(
        store.revision().await.unwrap().0,
        u64::from(steps),
        "the writer never noticed"
    );

    let taken = place.path("backup-0.db");
    let before = fs::read(&taken).unwrap();
    let (code, said) = place.store(&["backup", taken.to_str().unwrap()]);
    assert_eq!((code, fs::read(&taken).unwrap()), (64, before));
    assert!(said.contains("is there already"), "{said}");
    let nowhere = place.path("nowhere/b.db");
    assert_eq!(place.store(&["backup", nowhere.to_str().unwrap()]).0, 78);
    assert_eq!(place.names(".partial"), [] as [PathBuf; 0]);
    assert_eq!(
        place.names("backup-0.db-"),
        [] as [PathBuf; 0],
        "one file is all of it"
    );
}

#[tokio::test]
async fn a_restore_is_marked_and_keeps_what_was_there() {
    let place = Place::new();
    let store = place.open();
    store
        .commit(put("key/1/a", "enabled", Expect::Absent))
        .await
        .unwrap();
    let backup = place.path("backup.db");
    let backup = backup.to_str().unwrap();
    assert_eq!(place.store(&["backup", backup]).0, 0);
    store
        .commit(put("key/1/a", "disabled", Expect::Any))
        .await
        .unwrap();
    store
        .commit(put("key/1/b", "new", Expect::Any))
        .await
        .unwrap();

    let mine = std::process::id();
    let (code, said) = place.store(&["restore", backup]);
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains(&format!("process {mine} has the catalogue open")),
        "{said}"
    );
    assert_eq!(place.store(&["confirm"]).0, 78);
    store.close().await;

    let (code, said) = place.store(&["restore", backup]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.starts_with("catalogue.db is what backup.db had: 1 key, 1 restored.\n"),
        "{said}"
    );
    let kept = place.names("before-restore");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(
        (mode(&kept[0]), mode(&place.path("catalogue.db"))),
        (0o600, 0o600)
    );
    let (_, said) = place.store(&["check"]);
    assert!(
        said.contains("not confirmed: every key is disabled"),
        "{said}"
    );

    let store = place.open();
    assert!(store.restored().await.unwrap().is_some());
    let record = store.read(&name("key/1/a")).await.unwrap().unwrap();
    assert_eq!(
        record.value, "enabled",
        "as the backup has it; the mark says not to believe it"
    );
    assert_eq!(store.read(&name("key/1/b")).await, Ok(None));
    assert_eq!(
        store.revision().await.unwrap().0,
        4,
        "revisions never go back"
    );
    assert!(
        store.read(&Restored::name()).await.unwrap().is_some(),
        "an ordinary record"
    );
    store.close().await;

    let (code, said) = place.store(&["confirm"]);
    assert!(code == 0 && said.contains("is confirmed"), "{said}");
    assert_eq!(place.open().restored().await, Ok(None));
    let (code, said) = place.store(&["confirm"]);
    assert!(
        code == 0 && said.starts_with("There is no restore"),
        "{said}"
    );

    // What was kept is a whole catalogue.
    let mut settings = place.settings();
    settings.sqlite.path.clone_from(&kept[0]);
    let old = Store::open(&settings).unwrap();
    assert_eq!(
        old.read(&name("key/1/a")).await.unwrap().unwrap().value,
        "disabled"
    );
    assert_eq!(old.revision().await.unwrap().0, 3);
}

#[tokio::test]
async fn a_restore_takes_no_nonsense() {
    let place = Place::new();
    let store = place.open();
    store
        .commit(put("key/1/a", "1", Expect::Absent))
        .await
        .unwrap();
    store.close().await;
    let before = fs::read(place.path("catalogue.db")).unwrap();
    let backup = place.path("backup.db");
    assert_eq!(place.store(&["backup", backup.to_str().unwrap()]).0, 0);
    let good = fs::read(&backup).unwrap();
    let nonsense = place.path("nonsense.db");
    let mut flipped = good.clone();
    // Behind its name stands the record's value.
    let at = flipped
        .windows(7)
        .position(|part| part == b"key/1/a")
        .unwrap();
    flipped[at + 7] ^= 1;
    for (bytes, word) in [
        (&b""[..], "is no hsmac catalogue"),
        (b"this is a text and no database", "is no hsmac catalogue"),
        (&good[..good.len() / 2], "is damaged"),
        (&flipped, "is damaged"),
    ] {
        fs::write(&nonsense, bytes).unwrap();
        let (code, said) = place.store(&["restore", nonsense.to_str().unwrap()]);
        assert!(code == 78 && said.contains(word), "{said}");
        assert_eq!(
            fs::read(place.path("catalogue.db")).unwrap(),
            before,
            "untouched"
        );
    }
    assert_eq!(place.store(&["restore", "/nowhere/b.db"]).0, 78);

    // Over a damaged catalogue, and over none.
    fs::write(place.path("catalogue.db"), "damaged").unwrap();
    assert_eq!(place.store(&["restore", backup.to_str().unwrap()]).0, 0);
    assert_eq!(
        fs::read(&place.names("before-restore")[0]).unwrap(),
        b"damaged"
    );
    fs::remove_file(place.path("catalogue.db")).unwrap();
    assert_eq!(place.store(&["restore", backup.to_str().unwrap()]).0, 0);
    assert_eq!(
        place
            .open()
            .read(&name("key/1/a"))
            .await
            .unwrap()
            .unwrap()
            .value,
        "1"
    );
}

/// A restore that is killed at any system call leaves the old catalogue, the new one, or a file that
/// no hsmac opens before the restore was repeated.
#[tokio::test]
async fn a_restore_can_be_killed_at_any_moment() {
    let (mut moments, mut old, mut refused) = (0, 0, 0);
    for call in CALLS {
        for moment in 1.. {
            assert!(moment < 1000, "the restore never ends");
            let place = Place::new();
            let store = place.open();
            store
                .commit(put("a", "backup", Expect::Absent))
                .await
                .unwrap();
            let backup = place.path("backup.db");
            let backup = backup.to_str().unwrap();
            assert_eq!(place.store(&["backup", backup]).0, 0);
            store.commit(put("a", "live", Expect::Any)).await.unwrap();
            store.close().await;
            let ended = Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-e"])
                .arg(format!("trace={call}"))
                .arg("-e")
                .arg(format!("inject={call}:signal=KILL:when={moment}"))
                .arg(env!("CARGO_BIN_EXE_hsmac"))
                .args(["store", "restore", backup, "--config"])
                .arg(place.path("hsmac.toml"))
                .output()
                .unwrap();
            let value = match Store::open(&place.settings()) {
                Ok(store) => store.read(&name("a")).await.unwrap().unwrap().value,
                Err(fault) => {
                    let text = fault.to_string();
                    assert!(text.ends_with("run hsmac store restore again"), "{text}");
                    let (code, said) = place.store(&["restore", backup]);
                    assert_eq!(code, 0, "{said}");
                    refused += 1;
                    let store = place.open();
                    store.read(&name("a")).await.unwrap().unwrap().value
                }
            };
            match &value[..] {
                b"live" => old += 1,
                b"backup" => {
                    let kept = place.names("before-restore");
                    assert!(!kept.is_empty(), "{call} {moment}: what was there is kept");
                }
                other => panic!("{other:?}"),
            }
            if ended.status.success() {
                break;
            }
            moments += 1;
        }
    }
    println!("{moments} moments: {old} leave the old catalogue, {refused} neither");
    assert!(old > 20 && refused > 0);
}

#[test]
fn a_tool_that_only_looks_is_no_hindrance() {
    let place = Place::new();
    let mut tool = Tool::start(&place.path("catalogue.db"));
    for _ in 0..5 {
        assert_eq!(tool.say("open"), "ok 0");
        let (code, said) = place.store(&["check"]);
        assert!(
            code == 0 && said.contains(&format!("by process {}", tool.id())),
            "{said}"
        );
        assert_eq!(tool.say("close"), "ok");
    }
}

/// Root restores, the service serves: what root leaves is the service's.
#[tokio::test]
async fn what_root_restores_belongs_to_whom_the_catalogue_belonged() {
    let place = Place::new();
    let store = place.open();
    let change = put("key/1/a", "enabled", Expect::Absent);
    store.commit(change).await.unwrap();
    let backup = place.path("backup.db");
    let backup = backup.to_str().unwrap();
    assert_eq!(place.store(&["backup", backup]).0, 0);
    store.close().await;
    let service = (Some(4711), Some(4712));
    let owner = |name: &str| {
        let found = fs::metadata(place.path(name)).unwrap();
        (found.uid(), found.gid(), mode(&place.path(name)))
    };
    for name in ["catalogue.db", "catalogue.db.lock"] {
        chown(place.path(name), service.0, service.1).unwrap();
    }
    assert_eq!(place.store(&["restore", backup]).0, 0);
    assert_eq!(owner("catalogue.db"), (4711, 4712, 0o600));
    assert_eq!(place.store(&["confirm"]).0, 0);
    assert_eq!(owner("catalogue.db"), (4711, 4712, 0o600));

    // On another machine there is a folder and nothing in it yet.
    fs::create_dir(place.path("new")).unwrap();
    chown(place.path("new"), service.0, service.1).unwrap();
    let config = fs::read_to_string(place.path("hsmac.toml")).unwrap();
    let config = config.replace("catalogue.db", "new/catalogue.db");
    fs::write(place.path("hsmac.toml"), config).unwrap();
    assert_eq!(place.store(&["restore", backup]).0, 0);
    for name in ["new/catalogue.db", "new/catalogue.db.lock"] {
        assert_eq!(owner(name), (4711, 4712, 0o600), "{name}");
    }
    for left in fs::read_dir(place.path("new")).unwrap() {
        let left = left.unwrap();
        assert_eq!(left.metadata().unwrap().uid(), 4711, "{left:?}");
    }
}

/// Somebody else, who may write the folder, would leave a file that the service cannot open: refused before
/// anything is replaced.
#[tokio::test]
async fn who_cannot_give_the_restored_file_to_its_owner_is_refused() {
    let place = Place::new();
    let store = place.open();
    let change = put("key/1/a", "enabled", Expect::Absent);
    store.commit(change).await.unwrap();
    let backup = place.path("backup.db");
    assert_eq!(place.store(&["backup", backup.to_str().unwrap()]).0, 0);
    store.close().await;
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    open(place.dir.path(), 0o777).unwrap();
    for name in ["backup.db", "catalogue.db", "catalogue.db.lock"] {
        open(&place.path(name), 0o666).unwrap();
    }
    let before = fs::metadata(place.path("catalogue.db")).unwrap().ino();
    let output = Command::new(env!("CARGO_BIN_EXE_hsmac"))
        .args(["store", "restore"])
        .arg(&backup)
        .arg("--config")
        .arg(place.path("hsmac.toml"))
        .uid(4711)
        .gid(4712)
        .output();
    // The binary may be where this user cannot go.
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return,
        output => output.unwrap(),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("it would not be its owner's, uid 0: run this as root"),
        "{said}"
    );
    let after = fs::metadata(place.path("catalogue.db")).unwrap().ino();
    assert_eq!(before, after);
    assert_eq!(place.names("restore-new"), [] as [PathBuf; 0]);
}

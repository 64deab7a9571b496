//! Logs that are written, read back, cut, and changed by somebody.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;

use super::{
    call::{CallRecord, Noted},
    follow::Follower,
    log::{Log, OpenFault},
    reader::segments,
    settings::{Durability, OnFailure, Settings},
    verify::{Verified, prove, verify},
};
use crate::model::leaf_hash;
use crate::proto::audit::{Wire, entry::Entry as Leaf};

fn settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        durability: Durability::Written,
        on_failure: OnFailure::Refuse,
        reserve_mib: 0,
        seals: false,
        seal_object: None,
        seal_token: None,
        json_lines: None,
    }
}

fn record(number: u8) -> CallRecord<'static> {
    CallRecord {
        wire: Wire::Grpc,
        request_id: Some([number; 16]),
        trace_id: None,
        operation: "GenerateMac",
        principal: Some("arn:aws:iam::111122223333:user/billing"),
        source: None,
        exception: None,
        noted: Noted::default(),
    }
}

async fn append(log: &Log, numbers: std::ops::Range<u8>) {
    for number in numbers {
        log.outcome(&record(number)).await.unwrap();
    }
}

/// A folder, and a log in it that was opened `times`, with five calls each time.
async fn written(times: u8) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    for time in 0..times {
        let log = Log::open(&settings(&path)).unwrap();
        append(&log, time * 5..time * 5 + 5).await;
        log.close();
    }
    (folder, path)
}

fn verified(path: &Path) -> Verified {
    verify(path, &[], |_| ()).unwrap()
}

fn is_damaged(path: &Path) -> bool {
    !verified(path).damages.is_empty()
}

/// The segments' contents.
fn contents(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let segments = segments(path).unwrap().into_iter();
    segments
        .map(|one| (one.path.clone(), fs::read(one.path).unwrap()))
        .collect()
}

/// Where each frame of a segment begins, and the end.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut at = super::frame::MAGIC.len();
    let mut frames = vec![at];
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        at += super::frame::PREFIX + usize::try_from(length).unwrap();
        frames.push(at);
    }
    frames
}

fn calls(path: &Path) -> Vec<u8> {
    let mut log = Follower::new(path, 0).unwrap();
    calls_of(&mut log)
}

/// The request IDs of the calls that a follower has not seen yet.
fn calls_of(log: &mut Follower) -> Vec<u8> {
    let mut calls = Vec::new();
    let seen = |_, _: &[u8], entry: &crate::proto::audit::Entry, _: &_| {
        if let Some(Leaf::Call(call)) = &entry.entry {
            calls.push(call.request_id[0]);
        }
        true
    };
    log.read(seen).unwrap();
    calls
}

#[tokio::test]
async fn a_log_that_is_written_is_followed_record_by_record_and_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    let log = Log::open(&settings(&path)).unwrap();
    let mut follower = Follower::new(&path, 0).unwrap();
    assert_eq!(calls_of(&mut follower), [0; 0]);
    append(&log, 0..3).await;
    assert_eq!(calls_of(&mut follower), [0, 1, 2]);
    append(&log, 3..4).await;
    log.close();
    drop(log);
    let log = Log::open(&settings(&path)).unwrap();
    append(&log, 4..6).await;
    assert_eq!(calls_of(&mut follower), [3, 4, 5]);
    assert_eq!(calls_of(&mut follower), [0; 0]);
    // Half a frame is left for later.
    let last = segments(&path).unwrap().pop().unwrap().path;
    let whole = fs::read(&last).unwrap();
    append(&log, 6..7).await;
    let more = fs::read(&last).unwrap();
    fs::write(&last, &more[..whole.len() + 20]).unwrap();
    assert_eq!(calls_of(&mut follower), [0; 0]);
    fs::write(&last, &more).unwrap();
    assert_eq!(calls_of(&mut follower), [6]);
    log.close();
    // A file that was cut is not the end of the log, if others follow.
    let first = segments(&path).unwrap().remove(0).path;
    let bytes = fs::read(&first).unwrap();
    for cut in [1, 40] {
        fs::write(&first, &bytes[..bytes.len() - cut]).unwrap();
        let mut follower = Follower::new(&path, 0).unwrap();
        assert!(follower.read(|_, _, _, _| true).is_err());
    }
}

#[tokio::test]
async fn what_was_appended_is_there_in_order_over_several_starts_and_each_record_is_proved() {
    let (_folder, path) = written(3).await;
    assert_eq!(calls(&path), (0..15).collect::<Vec<u8>>());
    let found = verified(&path);
    assert_eq!((found.damages, found.segments), (Vec::new(), 3));
    let checkpoint = found.checkpoint.unwrap();
    assert_eq!(checkpoint.size, found.records);
    for index in 0..checkpoint.size {
        let (proof, of, record) = prove(&path, index).unwrap();
        assert_eq!(of, checkpoint);
        assert_eq!(proof.root(leaf_hash(&record)), Some(checkpoint.root));
    }
    assert!(
        prove(&path, checkpoint.size)
            .unwrap_err()
            .contains("records")
    );
    // Somebody's own checkpoint: of this log, and of none.
    let mut kept = ("kept".to_owned(), checkpoint);
    assert_eq!(
        verify(&path, std::slice::from_ref(&kept), |_| ())
            .unwrap()
            .damages,
        []
    );
    kept.1.root[0] ^= 1;
    assert_eq!(verify(&path, &[kept], |_| ()).unwrap().damages.len(), 1);
}

#[tokio::test]
async fn each_byte_that_is_changed_is_found() {
    let (_folder, path) = written(2).await;
    for (file, bytes) in contents(&path) {
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x40;
            fs::write(&file, &changed).unwrap();
            let damages = verified(&path).damages;
            assert!(
                damages.iter().any(|one| one.segment == file),
                "byte {place} of {file:?}: {damages:?}"
            );
        }
        fs::write(&file, &bytes).unwrap();
    }
    assert!(!is_damaged(&path));
}

#[tokio::test]
async fn frames_that_are_dropped_swapped_repeated_or_cut_are_found() {
    let (_folder, path) = written(2).await;
    for (file, bytes) in contents(&path) {
        let frames = frames(&bytes);
        let frame = |number: usize| &bytes[frames[number]..frames[number + 1]];
        let last = frames.len() - 2;
        let is_checkpoint =
            |number: usize| bytes[frames[number] + 8] == super::frame::Kind::Checkpoint as u8;
        let head = &bytes[..frames[0]];
        let is_found = |numbers: &[usize], what: &str| {
            let kept = numbers.iter().map(|number| frame(*number));
            let kept: Vec<u8> = std::iter::once(head)
                .chain(kept)
                .collect::<Vec<_>>()
                .concat();
            fs::write(&file, kept).unwrap();
            assert!(is_damaged(&path), "{what} of {file:?}");
        };
        let all: Vec<usize> = (0..=last).collect();
        for number in 0..last {
            // A checkpoint is no record: without it, or with two, the log says the same.
            if !is_checkpoint(number) {
                let mut dropped = all.clone();
                dropped.remove(number);
                is_found(&dropped, &format!("frame {number} dropped"));
                let mut repeated = all.clone();
                repeated.insert(number, number);
                is_found(&repeated, &format!("frame {number} repeated"));
            }
            let mut swapped = all.clone();
            swapped.swap(number, number + 1);
            is_found(&swapped, &format!("frames {number} and the next swapped"));
        }
        // Where no record comes after, none is lost.
        let ends = |length: usize| {
            frames[..=last]
                .iter()
                .rev()
                .take(2)
                .any(|begin| *begin == length)
        };
        assert!(is_checkpoint(last - 1));
        for length in (0..bytes.len()).filter(|length| !ends(*length)) {
            fs::write(&file, &bytes[..length]).unwrap();
            assert!(is_damaged(&path), "{file:?} cut to {length}");
        }
        fs::remove_file(&file).unwrap();
        let found = verified(&path);
        assert!(
            !found.damages.is_empty() || found.first_index > 0,
            "{file:?} removed"
        );
        fs::write(&file, &bytes).unwrap();
    }
    assert!(!is_damaged(&path));
}

/// Copies a log, as a crash would leave it.
fn crashed(path: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("audit");
    fs::create_dir(&copy).unwrap();
    fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for file in fs::read_dir(path).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    (folder, copy)
}

#[tokio::test]
async fn a_crash_costs_no_record_that_was_written_and_half_a_frame_is_put_aside() {
    let (_folder, path) = written(1).await;
    let log = Log::open(&settings(&path)).unwrap();
    append(&log, 5..9).await;
    for torn in [
        &b""[..],
        b"\x07",
        b"\x20\0\0\0\x01\x02\x03\x04\x01half a record",
        &[0; 100],
    ] {
        let (_copied, copy) = crashed(&path);
        let last = segments(&copy).unwrap().pop().unwrap().path;
        let whole = fs::read(&last).unwrap();
        fs::write(&last, [&whole, torn].concat()).unwrap();
        let again = Log::open(&settings(&copy)).unwrap();
        append(&again, 9..10).await;
        again.close();
        assert_eq!(calls(&copy), (0..10).collect::<Vec<u8>>());
        assert!(!is_damaged(&copy), "{torn:?}");
        let aside = fs::read(last.with_extension(format!("cut-at-{}", whole.len())));
        assert_eq!(aside.unwrap_or_default(), torn);
    }
    log.close();
}

#[tokio::test]
async fn a_log_that_lacks_what_its_checkpoint_has_told_of_is_not_gone_on_with() {
    let (_folder, path) = written(2).await;
    let (file, bytes) = contents(&path).pop().unwrap();
    let refused = |why: &str| match Log::open(&settings(&path)) {
        Err(OpenFault::Damaged(text)) => assert!(text.contains(why), "{text}"),
        Err(OpenFault::Unusable(text)) => panic!("{text}"),
        Ok(_) => panic!("it was opened"),
    };
    let frames = frames(&bytes);
    fs::write(&file, &bytes[..frames[3]]).unwrap();
    refused("good records");
    let mut changed = bytes;
    changed[frames[4] + 12] ^= 1;
    fs::write(&file, &changed).unwrap();
    refused("checksum");
    fs::remove_file(&file).unwrap();
    refused("good records");
}

#[tokio::test]
async fn others_than_the_owner_and_a_second_writer_are_kept_out() {
    let (_folder, path) = written(1).await;
    let log = Log::open(&settings(&path)).unwrap();
    let second = Log::open(&settings(&path))
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(second.contains("another process"), "{second}");
    log.close();
    drop(log);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    let open = Log::open(&settings(&path))
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(open.contains("chmod 700"), "{open}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_writes_and_a_file_that_is_removed_is_noticed_and_told_of() {
    let (_folder, path) = written(1).await;
    let log = Log::open(&settings(&path)).unwrap();
    let callers = (0..64).map(|_| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { append(&log, 0..50).await })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(calls(&path).len(), 5 + 64 * 50);
    let removed = segments(&path).unwrap().pop().unwrap();
    fs::rename(&removed.path, path.join("elsewhere")).unwrap();
    fs::remove_file(path.join("elsewhere")).unwrap();
    let began = std::time::Instant::now();
    while log.snapshot().failures == 0 || log.snapshot().trouble.is_some() {
        assert!(began.elapsed().as_secs() < 60, "{:?}", log.snapshot());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    append(&log, 1..2).await;
    log.close();
    let told = verified(&path).damages;
    assert!(
        told.iter()
            .any(|damage| damage.what.contains("records are missing")),
        "{told:?}"
    );
}

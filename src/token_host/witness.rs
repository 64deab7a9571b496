//! What this host's token has sealed of the audit log. A seal is made of the tree that was sealed last and the leaves
//! that follow on it, so that no seal ever contradicts an earlier one, whoever asks for it: not even a front that
//! somebody else has taken over.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::error::{Class, HostError};
use crate::{
    model::{Checkpoint, Extension, Hash, Tree, decode_hex, encode_hex, leaf_hash},
    proto::host::{CheckSeal, Seal},
};

/// Remembers, in a file of the state folder for each log, what was sealed.
pub(super) struct Witness {
    state_dir: PathBuf,
}

/// What came of the wish for a seal.
#[derive(Debug, PartialEq)]
pub(super) enum Witnessed {
    /// It is remembered, and to be sealed now.
    Sealed(Checkpoint),
    /// What was sealed before; the wish begins elsewhere.
    Remembered { size: u64, root: Hash },
}

impl Witnessed {
    fn remembered(tree: &Tree) -> Self {
        let (size, root) = (tree.size(), tree.root());
        Self::Remembered { size, root }
    }
}

impl Witness {
    pub(super) fn new(state_dir: &str) -> Self {
        Self {
            state_dir: PathBuf::from(state_dir),
        }
    }

    /// The log as it is with some leaves more, remembered on disk before anybody can have a seal of it.
    ///
    /// # Errors
    /// It is not what a log can become, or it cannot be remembered; then nothing may be sealed.
    pub(super) fn extend(&self, wish: &Seal) -> Result<Witnessed, HostError> {
        let log = log_of(&wish.origin)?;
        let refused = |what: &dyn std::fmt::Display| refused(&format!("{}: {what}", wish.origin));
        let extension = extension(wish).ok_or_else(|| refused(&"the leaves are malformed"))?;
        let path = self.state_dir.join(format!("audit-seals.{log}"));
        // Without a file of ours beside it: who only asks may be another user than the service.
        let tree = remembered(&path).map_err(|error| refused(&error))?;
        if tree.size() != extension.begin() {
            return Ok(Witnessed::remembered(&tree));
        }
        // Other hosts of the token seal too.
        let lock = options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.state_dir.join("audit-seals.lock"));
        let lock = lock.map_err(|error| refused(&error))?;
        lock.lock().map_err(|error| refused(&error))?;
        if !path.exists() && self.logs().map_err(|error| refused(&error))? >= MOST_LOGS {
            let full = format!("{MOST_LOGS} logs were sealed here; remove old audit-seals files");
            return Err(refused(&full));
        }
        let tree = remembered(&path).map_err(|error| refused(&error))?;
        if tree.size() != extension.begin() {
            return Ok(Witnessed::remembered(&tree));
        }
        let grown = tree.extended(&extension).map_err(|fault| refused(&fault))?;
        self.remember(&path, &grown)
            .map_err(|error| refused(&format!("{} cannot be written: {error}", path.display())))?;
        Ok(Witnessed::Sealed(Checkpoint {
            origin: wish.origin.clone(),
            size: grown.size(),
            root: grown.root(),
        }))
    }

    /// How many logs are remembered.
    fn logs(&self) -> io::Result<usize> {
        let files = fs::read_dir(&self.state_dir)?;
        let is_log = |file: &fs::DirEntry| {
            file.file_name()
                .to_string_lossy()
                .starts_with("audit-seals.")
        };
        Ok(files.flatten().filter(is_log).count())
    }

    fn remember(&self, path: &Path, tree: &Tree) -> io::Result<()> {
        let mut text = format!("{FORMAT}\n{}\n", tree.size());
        for subtree in tree.subtrees() {
            text.push_str(&encode_hex(subtree));
            text.push('\n');
        }
        text.push_str(&encode_hex(&leaf_hash(text.as_bytes())));
        text.push('\n');
        let new = path.with_extension("new");
        let mut file = options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&new, path)?;
        File::open(&self.state_dir)?.sync_all()
    }
}

/// The checkpoint that a seal is said to be of.
///
/// # Errors
/// It is none.
pub(super) fn checked(check: &CheckSeal) -> Result<Checkpoint, HostError> {
    log_of(&check.origin)?;
    let root = check.root.as_ref().try_into();
    Ok(Checkpoint {
        origin: check.origin.clone(),
        size: check.size,
        root: root.map_err(|_| refused("a root has 32 bytes"))?,
    })
}

/// The log's own part of its name, a UUID: it becomes the name of a file.
fn log_of(origin: &str) -> Result<&str, HostError> {
    origin
        .strip_prefix("hsmac/audit/")
        .filter(|log| uuid::Uuid::try_parse(log).is_ok_and(|uuid| uuid.to_string() == *log))
        .ok_or_else(|| refused("no audit log is called so"))
}

fn extension(wish: &Seal) -> Option<Extension> {
    if wish.levels.len() != wish.hashes.len() {
        return None;
    }
    let subtrees = wish.levels.iter().zip(&wish.hashes).map(|(level, hash)| {
        let level = u8::try_from(*level).ok()?;
        Some((level, hash.as_ref().try_into().ok()?))
    });
    Some(Extension::from_parts(
        wish.begin,
        subtrees.collect::<Option<_>>()?,
    ))
}

/// Nothing, if there is no file: whoever begins a log begins with its first leaf.
fn remembered(path: &Path) -> io::Result<Tree> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tree::default()),
        Err(error) => return Err(error),
    };
    let damaged = || io::Error::other(format!("{} is damaged", path.display()));
    let sum = text.trim_end().rsplit('\n').next().unwrap_or_default();
    let said = text.trim_end().strip_suffix(sum).unwrap_or_default();
    if encode_hex(&leaf_hash(said.as_bytes())) != sum {
        return Err(damaged());
    }
    let mut lines = said.lines();
    if lines.next() != Some(FORMAT) {
        return Err(damaged());
    }
    let size = lines.next().and_then(|size| size.parse().ok());
    let subtrees: Option<Vec<_>> = lines
        .map(|line| decode_hex(line)?.try_into().ok())
        .collect();
    let tree = size
        .zip(subtrees)
        .and_then(|(size, all)| Tree::of(size, all));
    tree.ok_or_else(damaged)
}

fn refused(what: &str) -> HostError {
    HostError::new(
        Class::Unsupported,
        format!("the audit log is not sealed: {what}"),
    )
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Security: whoever makes up names of logs fills no disk with them.
const MOST_LOGS: usize = 1000;
/// The first line of what is remembered.
const FORMAT: &str = "hsmac audit seals 1";

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "hsmac/audit/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn wish(begin: u8, end: u8) -> Seal {
        let mut extension = Extension::after(begin.into());
        (begin..end).for_each(|leaf| extension.push(leaf_hash(&[leaf])));
        let (levels, hashes) = extension
            .subtrees()
            .iter()
            .map(|(level, hash)| (u32::from(*level), hash.to_vec().into()))
            .unzip();
        Seal {
            origin: ORIGIN.into(),
            begin: begin.into(),
            levels,
            hashes,
            ..Seal::default()
        }
    }

    fn remembered(end: u8) -> Witnessed {
        let Checkpoint { size, root, .. } = root(end);
        Witnessed::Remembered { size, root }
    }

    fn root(end: u8) -> Checkpoint {
        let mut tree = Tree::default();
        (0..end).for_each(|leaf| tree.push(leaf_hash(&[leaf])));
        Checkpoint {
            origin: ORIGIN.into(),
            size: end.into(),
            root: tree.root(),
        }
    }

    #[test]
    fn a_seal_only_adds_to_what_was_sealed_before_also_by_another_host() {
        let folder = tempfile::tempdir().unwrap();
        let witness = || Witness::new(folder.path().to_str().unwrap());
        let sealed = |begin, end| witness().extend(&wish(begin, end)).unwrap();
        assert_eq!(sealed(0, 5), Witnessed::Sealed(root(5)));
        // Whoever leaves out or changes what was sealed has no way to a seal.
        assert_eq!(sealed(0, 9), remembered(5));
        assert_eq!(sealed(4, 9), remembered(5));
        assert_eq!(sealed(6, 9), remembered(5));
        assert_eq!(sealed(5, 13), Witnessed::Sealed(root(13)));
        // The same once more, where its seal was lost on the way.
        assert_eq!(sealed(13, 13), Witnessed::Sealed(root(13)));
    }

    #[test]
    fn what_is_no_log_and_no_leaf_is_refused_and_forgets_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::new(folder.path().to_str().unwrap());
        witness.extend(&wish(0, 5)).unwrap();
        let mut wrong = vec![wish(5, 6); 5];
        wrong[0].origin = "hsmac/audit/../../etc/passwd".into();
        wrong[1].origin = ORIGIN.to_uppercase();
        wrong[2].levels.push(0);
        wrong[3].levels[0] = 64;
        wrong[4].hashes[0] = vec![1; 31].into();
        for wish in wrong {
            assert!(witness.extend(&wish).is_err(), "{wish:?}");
        }
        assert_eq!(
            witness.extend(&wish(5, 6)).unwrap(),
            Witnessed::Sealed(root(6))
        );
    }

    #[test]
    fn who_only_asks_what_was_sealed_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::new(folder.path().to_str().unwrap());
        let nothing = Seal {
            origin: ORIGIN.into(),
            begin: u64::MAX,
            ..Seal::default()
        };
        assert_eq!(witness.extend(&nothing).unwrap(), remembered(0));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn whoever_makes_up_logs_is_stopped_and_the_real_one_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::new(folder.path().to_str().unwrap());
        witness.extend(&wish(0, 5)).unwrap();
        for number in 0..MOST_LOGS {
            fs::write(folder.path().join(format!("audit-seals.{number}")), "").unwrap();
        }
        let mut made_up = wish(0, 1);
        made_up.origin = ORIGIN.replace("1234abcd", "00000000");
        assert!(witness.extend(&made_up).is_err());
        assert!(witness.extend(&wish(5, 6)).is_ok());
    }

    #[test]
    fn a_memory_that_is_damaged_or_cannot_be_written_seals_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::new(folder.path().to_str().unwrap());
        witness.extend(&wish(0, 5)).unwrap();
        let log = ORIGIN.rsplit('/').next().unwrap();
        let path = folder.path().join(format!("audit-seals.{log}"));
        let good = fs::read_to_string(&path).unwrap();
        for damage in [
            String::new(),
            good.replace('5', "6"),
            good[..good.len() - 9].to_owned(),
        ] {
            fs::write(&path, damage).unwrap();
            assert!(witness.extend(&wish(5, 6)).is_err());
        }
        fs::write(&path, &good).unwrap();
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(witness.extend(&wish(5, 6)).is_err());
        let nowhere = Witness::new("/nowhere");
        assert!(nowhere.extend(&wish(0, 1)).is_err());
    }
}

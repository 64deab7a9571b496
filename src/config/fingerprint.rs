//! Whether files have changed since they were read.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What the file system says of files: enough to see that one of them was changed or replaced.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileFingerprints(Vec<(PathBuf, Option<FileFingerprint>)>);

/// Device, inode, size, and the times of modification and of change in seconds and nanoseconds.
pub(super) type FileFingerprint = [i64; 7];

impl FileFingerprints {
    /// Looks at files; one that is not there has a fingerprint too.
    pub(super) fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let fingerprint = |file: PathBuf| {
            let found = fingerprint(&file);
            (file, found)
        };
        Self(files.into_iter().map(fingerprint).collect())
    }

    /// Puts an earlier fingerprint of a file in the place of the one that was taken.
    pub(super) fn set(&mut self, file: &Path, earlier: Option<FileFingerprint>) {
        for (known, found) in &mut self.0 {
            if known == file {
                *found = earlier;
            }
        }
    }

    /// The files that are not as they were, with commas between them.
    pub fn changed_since(&self, before: &Self) -> String {
        let changed = self.0.iter().filter(|file| !before.0.contains(file));
        let changed: Vec<String> = changed
            .map(|(file, _)| file.display().to_string())
            .collect();
        changed.join(", ")
    }
}

pub(super) fn fingerprint(file: &Path) -> Option<FileFingerprint> {
    let found = fs::metadata(file).ok()?;
    Some([
        found.dev().cast_signed(),
        found.ino().cast_signed(),
        found.size().cast_signed(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ])
}

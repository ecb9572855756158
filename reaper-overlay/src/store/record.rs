//! Where Reaper keeps its own records: out of what workloads can fill.
//!
//! A workload that fills its overlay must not keep another one from being created, or itself from
//! being deleted. So a record lies on a filesystem that holds records alone (`live/records`), and
//! where the layers do not outlive a reboot anyway it is only there: beside the layers there is a
//! symlink, by which an older Reaper finds it. That one replaces the link by a file, which is then
//! the newer of the two, and is taken over by the next write.
//!
//! Where the layers are on a disk, the record has to be there as well. If the disk is full, the
//! record is kept in `live/records` until it can be written again.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    contract::{Context, Error},
    linux::files::{exists, make_dir, read_versioned, remove_file, write_json, write_json_durably},
};

/// One record of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Beside the layers, where every version of Reaper looks for it.
    path: PathBuf,
    /// On the filesystem that workloads cannot fill.
    safe: PathBuf,
    /// What the symlink at `path` says.
    link: PathBuf,
    /// Whether it has to outlive a reboot, as the layers do.
    persistent: bool,
}

impl Record {
    /// The record at `path`, which like `safe` is relative to the directory `base`.
    pub(crate) fn new(base: &Path, path: &Path, safe: &Path, persistent: bool) -> Self {
        let up = path.components().skip(1).map(|_| "..");
        Self {
            link: up.collect::<PathBuf>().join(safe),
            path: base.join(path),
            safe: base.join(safe),
            persistent,
        }
    }

    /// Reads it; `None` if it is missing.
    pub(crate) fn read<T: DeserializeOwned>(&self, known: u32) -> Result<Option<T>, Error> {
        read_versioned(self.current(), known)
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.persistent
    }

    pub(crate) fn exists(&self) -> Result<bool, Error> {
        exists(self.current())
    }

    /// The file that has it now.
    pub(crate) fn current(&self) -> &Path {
        let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
        match self.persistent.then(|| modified(&self.safe)).flatten() {
            // An older Reaper does not know of the copy, and may have written since.
            Some(safe) if modified(&self.path).is_none_or(|there| there <= safe) => &self.safe,
            _ => &self.path,
        }
    }

    /// Replaces it in one step.
    pub(crate) fn write<T: Serialize>(&self, value: &T) -> Result<(), Error> {
        self.write_by(value, write_json)
    }

    /// The same, and where it is on a disk, it is there before anything that is done afterwards.
    pub(crate) fn write_durably<T: Serialize>(&self, value: &T) -> Result<(), Error> {
        self.write_by(value, write_json_durably)
    }

    fn write_by<T: Serialize>(
        &self,
        value: &T,
        write: impl Fn(&Path, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.persistent {
            self.write_safely(value)?;
            return self.link();
        }
        match write(&self.path, value) {
            Ok(()) => remove_file(&self.safe),
            Err(error) if self.write_safely(value).is_ok() => {
                tracing::warn!(
                    "{error}: the record is in {} until the disk takes it, or until a reboot",
                    self.safe.display()
                );
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn write_safely<T: Serialize>(&self, value: &T) -> Result<(), Error> {
        if let Some(dir) = self.safe.parent() {
            make_dir(dir)?;
        }
        write_json(&self.safe, value)
    }

    /// Puts the symlink where an older Reaper looks for the record.
    fn link(&self) -> Result<(), Error> {
        if fs::read_link(&self.path).is_ok_and(|link| link == self.link) {
            return Ok(());
        }
        let new = self.path.with_extension("json.new");
        let made = match symlink(&self.link, &new) {
            // What an older Reaper was killed over.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_file(&new)?;
                symlink(&self.link, &new)
            }
            made => made,
        };
        made.context("make the link", &new)?;
        fs::rename(&new, &self.path).context("rename to", &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn record(base: &Path, persistent: bool) -> Record {
        fs::create_dir_all(base.join("scopes/s")).unwrap();
        let (path, safe) = ("scopes/s/layers.json", "live/records/scopes/s/layers.json");
        Record::new(base, Path::new(path), Path::new(safe), persistent)
    }

    fn read(record: &Record) -> Option<serde_json::Value> {
        record.read(1).unwrap()
    }

    #[test]
    fn a_record_of_an_older_reaper_is_read_and_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(dir.path(), false);
        assert_eq!(read(&record), None);
        for number in 1..3 {
            // As an older Reaper does: a file in the place of whatever is there.
            write_json(
                &record.path,
                &serde_json::json!({"version": 1, "old": number}),
            )
            .unwrap();
            assert_eq!(read(&record).unwrap()["old"], number);
            record
                .write(&serde_json::json!({"version": 1, "new": number}))
                .unwrap();
            assert!(record.path.is_symlink());
            let found = read_versioned::<serde_json::Value>(&record.path, 1).unwrap();
            assert_eq!(found.unwrap()["new"], number, "an older Reaper finds it");
            assert_eq!(read(&record).unwrap()["new"], number);
        }
    }

    #[test]
    fn a_record_that_the_disk_does_not_take_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(dir.path(), true);
        let value = |number: u32| serde_json::json!({"version": 1, "number": number});
        record.write(&value(1)).unwrap();
        assert!(record.path.is_file() && !record.safe.exists());
        // Root may write anywhere but into a directory's place.
        let new = record.path.with_extension("json.new");
        fs::create_dir(&new).unwrap();
        record.write(&value(2)).unwrap();
        assert_eq!(read(&record), Some(value(2)));
        fs::remove_dir(&new).unwrap();
        record.write_durably(&value(3)).unwrap();
        assert_eq!(read(&record), Some(value(3)));
        assert!(!record.safe.exists(), "the disk has it again");
    }

    #[test]
    fn what_an_older_reaper_writes_to_the_disk_later_counts() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(dir.path(), true);
        record
            .write_safely(&serde_json::json!({"version": 1, "new": 1}))
            .unwrap();
        assert_eq!(read(&record).unwrap()["new"], 1);
        write_json(&record.path, &serde_json::json!({"version": 1, "old": 1})).unwrap();
        let later = SystemTime::now() + Duration::from_secs(1);
        let file = fs::File::options().write(true).open(&record.path).unwrap();
        file.set_modified(later).unwrap();
        assert_eq!(read(&record).unwrap()["old"], 1);
    }
}

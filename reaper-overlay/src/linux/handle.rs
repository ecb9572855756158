//! A file by a descriptor that names it and does nothing else (`O_PATH` of open(2)).
//!
//! What a path names may be swapped between two calls; a handle stays the same file. Making one
//! follows no symlink, waits for no FIFO's other end and wakes no device. Its content is opened
//! through `/proc/self/fd`, which is this very file (proc_pid_fd(5)), and only of regular files and
//! directories.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, StatxFlags, openat, readlinkat, statx},
    io::Errno,
};

use crate::contract::{Context, Error};

/// A file of any type, and what it was when the handle was made.
#[derive(Debug)]
pub(crate) struct Handle {
    file: File,
    metadata: Metadata,
}

/// What tells one file from another while both exist: the device and the inode.
pub(crate) type FileId = (u64, u64);

impl Handle {
    /// The entry `name` of the directory `dir`, itself where it is a symlink; `None` if it is gone.
    pub(crate) fn at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Self>> {
        #[cfg(test)]
        count::OPENED.with(|count| count.set(count.get() + 1));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(dir, name, flags, Mode::empty()) {
            Ok(file) => {
                let file = File::from(file);
                let metadata = file.metadata()?;
                Ok(Some(Self { file, metadata }))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The file at `path`, which is relative, below the directory `dir`; `None` if it is gone, or a symlink has
    /// come into the way. It is the directory itself where `path` is empty.
    pub(crate) fn below(dir: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Self>> {
        let mut at: Option<Self> = None;
        for name in path.components() {
            let parent = at.as_ref().map_or(dir, AsFd::as_fd);
            match Self::at(parent, name.as_os_str())? {
                Some(found) => at = Some(found),
                None => return Ok(None),
            }
        }
        match at {
            None => Self::at(dir, OsStr::new(".")),
            found => Ok(found),
        }
    }

    /// The file at a path that only Reaper or the node's administrator decides on; `None` if it is
    /// gone.
    pub(crate) fn of(path: &Path) -> Result<Option<Self>, Error> {
        Self::at(CWD, path.as_os_str()).context("open", path)
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What the file is now.
    pub(crate) fn look_again(&self) -> Result<Metadata, Error> {
        self.file.metadata().with_context("stat", || self.path())
    }

    pub(crate) fn id(&self) -> FileId {
        (self.metadata.dev(), self.metadata.ino())
    }

    pub(crate) fn inode(&self) -> u64 {
        self.metadata.ino()
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.metadata.is_dir()
    }

    /// A path that is this very file for as long as the handle is open, also where it is a symlink.
    pub(crate) fn link(&self) -> PathBuf {
        fd_link(&self.file)
    }

    /// Where the file is now, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        #[cfg(test)]
        count::NAMED.with(|count| count.set(count.get() + 1));
        let link = self.link();
        fs::read_link(&link).unwrap_or(link)
    }

    /// The content of a regular file.
    pub(crate) fn open(&self) -> io::Result<File> {
        if !self.metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        File::open(self.link())
    }

    /// The target of a symlink.
    pub(crate) fn target(&self) -> Result<PathBuf, Error> {
        let target = readlinkat(&self.file, "", Vec::new());
        let target = target.with_context("read the link", || self.path())?;
        Ok(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    /// The names in a directory, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut names = Vec::new();
        for entry in Dir::new(openat(&self.file, ".", flags, Mode::empty())?)? {
            let name = entry?;
            let name = OsStr::from_bytes(name.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whether both are on one mount. Where the kernel does not say: on one filesystem.
    pub(crate) fn shares_mount(&self, other: &Self) -> bool {
        match (self.mount(), other.mount()) {
            (Some(one), Some(two)) => one == two,
            _ => self.metadata.dev() == other.metadata.dev(),
        }
    }

    /// The number of the mount, since Linux 5.8.
    fn mount(&self) -> Option<u64> {
        let found = statx(&self.file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        let has = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
        has.then_some(found.stx_mnt_id)
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A path that is this very file for as long as it is open (proc_pid_fd(5)).
pub(crate) fn fd_link(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// What tests count of this thread's calls.
#[cfg(test)]
pub(crate) mod count {
    use std::cell::Cell;

    thread_local! {
        pub(super) static OPENED: Cell<u64> = const { Cell::new(0) };
        pub(super) static NAMED: Cell<u64> = const { Cell::new(0) };
    }

    /// How many files `act` opens, and how often it asks for the path of one.
    pub(crate) fn of(act: impl FnOnce()) -> (u64, u64) {
        let now = || (OPENED.get(), NAMED.get());
        let before = now();
        act();
        let after = now();
        (after.0 - before.0, after.1 - before.1)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_handle_is_the_file_itself_of_any_type() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "text").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        rustix::fs::mknodat(
            CWD,
            dir.path().join("fifo"),
            rustix::fs::FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        let root = Handle::of(dir.path()).unwrap().unwrap();
        assert_eq!(root.names().unwrap(), ["fifo", "file", "link"]);
        let at = |name: &str| Handle::at(root.as_fd(), OsStr::new(name)).unwrap();
        assert!(at("none").is_none());
        let link = at("link").unwrap();
        assert_eq!(link.target().unwrap(), Path::new("file"));
        assert!(link.open().is_err() && at("fifo").unwrap().open().is_err());
        let file = at("file").unwrap();
        fs::rename(dir.path().join("file"), dir.path().join("moved")).unwrap();
        symlink("/etc/passwd", dir.path().join("file")).unwrap();
        assert_eq!(io::read_to_string(file.open().unwrap()).unwrap(), "text");
        assert_eq!(file.path().file_name(), Some(OsStr::new("moved")));
        assert!(root.shares_mount(&file));
    }
}

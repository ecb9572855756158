//! A folder by its descriptor: what is done in it cannot be led elsewhere by a path that changes.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use crate::lock::{lock_exclusive, try_lock_exclusive};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// What is in a file of a [`Folder`].
pub(crate) enum Content {
    /// Nothing has this name.
    Missing,
    /// Not a regular file, or one that is longer than allowed: why.
    Alien(&'static str),
    /// A file, whole.
    Bytes(Vec<u8>),
}

/// An open folder. Names are single path components, and links are not followed.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// The folder at `path`, which may be a link to one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(retry_on_intr(|| {
            fs::openat(fs::CWD, path, FOLDER, Mode::empty())
        })?))
    }

    /// The folder `name` in this one.
    pub(crate) fn open_in(&self, name: &str) -> io::Result<Self> {
        let flags = FOLDER | OFlags::NOFOLLOW;
        Ok(Self(retry_on_intr(|| {
            fs::openat(&self.0, name, flags, Mode::empty())
        })?))
    }

    /// Makes the folder `name` of mode 0700; false if something has the name already.
    pub(crate) fn make_in(&self, name: &str) -> io::Result<bool> {
        match fs::mkdirat(&self.0, name, Mode::RWXU) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until no other descriptor of this folder is locked. Closing it ends the lock.
    pub(crate) fn lock(&self) -> io::Result<()> {
        lock_exclusive(&self.0)
    }

    /// The same without waiting: false if another descriptor is.
    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        try_lock_exclusive(&self.0)
    }

    /// Ends the lock also where a process that is just being forked has a copy of the descriptor.
    pub(crate) fn unlock(&self) {
        let _ = fs::flock(&self.0, FlockOperation::Unlock);
    }

    /// Whether `name` in `parent` is this very folder.
    pub(crate) fn is_entry_of(&self, parent: &Self, name: &str) -> io::Result<bool> {
        let own = fs::fstat(&self.0)?;
        match fs::statat(&parent.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(entry) => Ok((entry.st_dev, entry.st_ino) == (own.st_dev, own.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What `path` below this folder is, itself; `None` if nothing is there. Links on the way to
    /// its last component are followed.
    pub(crate) fn kind_of(&self, path: impl AsRef<Path>) -> io::Result<Option<FileType>> {
        match fs::statat(&self.0, path.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the folder mode 0700; refused if another user owns it.
    pub(crate) fn make_private(&self) -> io::Result<()> {
        let own = fs::fstat(&self.0)?;
        if own.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("the folder belongs to uid {}", own.st_uid),
            ));
        }
        if own.st_mode & 0o077 != 0 {
            fs::fchmod(&self.0, Mode::RWXU)?;
        }
        Ok(())
    }

    /// Reads the file `name`, if it has at most `limit` bytes.
    pub(crate) fn read(&self, name: &str, limit: usize) -> io::Result<Content> {
        // Without NONBLOCK a FIFO in the place of the file would block for good.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match retry_on_intr(|| fs::openat(&self.0, name, flags, Mode::empty())) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(Content::Missing),
            Err(Errno::LOOP) => return Ok(Content::Alien("it is a symbolic link")),
            Err(Errno::NXIO) => return Ok(Content::Alien("it is not a regular file")),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(Content::Alien("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Ok(Content::Alien("it is too long"));
        }
        Ok(Content::Bytes(bytes))
    }

    /// Writes a new file `name`, durable but for its entry here, replacing what a crash left. If
    /// that fails there is none.
    pub(crate) fn stage(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.remove(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(retry_on_intr(|| fs::openat(&self.0, name, flags, mode))?);
        let written = file.write_all(contents).and_then(|()| file.sync_all());
        if written.is_err() {
            let _ = self.remove(name);
        }
        written
    }

    /// Gives the file `from` the name `to`, in place of what has it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file or an empty folder, if there is one.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let removed = match fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR),
            removed => removed,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes what was made, renamed and removed here durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| fs::fsync(&self.0))?)
    }
}

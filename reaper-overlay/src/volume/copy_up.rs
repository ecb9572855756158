//! The content of a tmpfs that begins as a copy of what it is mounted on (`tmpcopyup`).
//!
//! Directories, regular files and symlinks are copied, with what is mounted below left out. Other containers may
//! change the files meanwhile: all goes by descriptors, and what is gone is left out.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, mkdirat, openat, symlinkat},
    io::Errno,
};

use crate::{
    contract::{Context, Error, user::Privilege},
    linux::{
        file_attributes::{self, Attributes},
        handle::Handle,
        walk::{Cursor, Visitor, walk},
    },
};

/// Copies what is in the directory `from` to the empty directory `to`, with the attributes of both.
pub(super) fn copy_up(from: Handle, to: BorrowedFd<'_>) -> Result<(), Error> {
    let privilege = Privilege::of_process();
    let again = |dir| Handle::at(dir, OsStr::new(".")).with_context("open", || from.path());
    let root = again(to)?.ok_or(Errno::NOENT);
    let root = root.with_context("open", || from.path())?;
    let mut copying = CopyUp {
        privilege,
        mount: again(from.as_fd())?,
        directories: vec![(PathBuf::new(), Taken::from(&from, privilege)?)],
        to: Cursor::new(root),
    };
    walk(from, &mut copying)?;
    // Last, and inner ones first: making an entry changes the times of its directory.
    let CopyUp {
        mut to,
        directories,
        ..
    } = copying;
    for (path, attributes) in directories.iter().rev() {
        let copy = to.find(path)?.ok_or(Errno::NOENT).context("find", path)?;
        attributes.give(&copy)?;
    }
    Ok(())
}

struct CopyUp {
    privilege: Privilege,
    /// What is copied is on its mount.
    mount: Option<Handle>,
    to: Cursor,
    directories: Vec<(PathBuf, Taken)>,
}

impl Visitor for CopyUp {
    fn visit(&mut self, path: &Path, file: &Handle) -> Result<bool, Error> {
        let kind = file.metadata().file_type();
        if !self.to.go_to_parent(path)? {
            return Err(Errno::NOENT).context("find the parent of", path);
        }
        let name = path.file_name().unwrap_or_default();
        if kind.is_dir() {
            mkdirat(&self.to, name, Mode::from_raw_mode(0o777)).context("make", path)?;
            let is_same_mount = |mount: &Handle| mount.shares_mount(file);
            let goes_on = self.mount.as_ref().is_none_or(is_same_mount);
            if goes_on {
                let attributes = Taken::from(file, self.privilege)?;
                self.directories.push((path.to_owned(), attributes));
            }
            return Ok(goes_on);
        }
        if kind.is_symlink() {
            symlinkat(file.target()?, &self.to, name).context("make", path)?;
        } else if kind.is_file() {
            copy_file(file, self.to.as_fd(), name).context("copy to", path)?;
        } else {
            return Ok(false);
        }
        let copy = self.to.entry(name)?;
        let copy = copy.ok_or(Errno::NOENT).context("find", path)?;
        Taken::from(file, self.privilege)?.give(&copy)?;
        Ok(false)
    }
}

fn copy_file(from: &Handle, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut to = File::from(openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut from.open()?, &mut to).map(drop)
}

/// What of a file's attributes a copy gets.
enum Taken {
    All(Attributes),
    /// What an ordinary user can set.
    ModeAndTimes(Metadata),
}

impl Taken {
    fn from(file: &Handle, privilege: Privilege) -> Result<Self, Error> {
        Ok(match privilege {
            Privilege::Root => Self::All(Attributes::read(file)?),
            Privilege::User => Self::ModeAndTimes(file.metadata().clone()),
        })
    }

    fn give(&self, to: &Handle) -> Result<(), Error> {
        match self {
            Self::All(attributes) => attributes.set(to),
            Self::ModeAndTimes(metadata) if metadata.is_symlink() => Ok(()),
            Self::ModeAndTimes(metadata) => file_attributes::set_mode_and_times(to, metadata),
        }
    }
}

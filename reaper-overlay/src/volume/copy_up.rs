//! The content of a tmpfs that begins as a copy of what it is mounted on (`tmpcopyup`).
//!
//! Directories, regular files and symlinks are copied, with what is mounted below left out. Other containers may
//! change the files meanwhile: all goes by descriptors, and what is gone is left out.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{fd::AsFd, unix::fs::symlink},
    path::{Path, PathBuf},
};

use crate::{
    contract::{Context, Error, user::Privilege},
    linux::{
        file_attributes::{self, Attributes},
        handle::Handle,
        walk::{Visitor, walk},
    },
};

/// Copies what is in the directory `from` to the empty directory `to`, with the attributes of both.
pub(super) fn copy_up(from: Handle, to: PathBuf) -> Result<(), Error> {
    let privilege = Privilege::of_process();
    let mut copying = CopyUp {
        privilege,
        mount: Handle::at(from.as_fd(), ".".as_ref()).context("open", &to)?,
        directories: vec![(PathBuf::new(), Taken::from(&from, privilege)?)],
        to,
    };
    walk(from, &mut copying)?;
    // Last, and inner ones first: making an entry changes the times of its directory.
    let CopyUp {
        to, directories, ..
    } = copying;
    directories
        .iter()
        .rev()
        .try_for_each(|(path, attributes)| attributes.give(&to.join(path)))
}

struct CopyUp {
    privilege: Privilege,
    /// What is copied is on its mount.
    mount: Option<Handle>,
    to: PathBuf,
    directories: Vec<(PathBuf, Taken)>,
}

impl Visitor for CopyUp {
    fn visit(&mut self, path: &Path, file: &Handle) -> Result<bool, Error> {
        let copy = self.to.join(path);
        let kind = file.metadata().file_type();
        if kind.is_dir() {
            fs::create_dir(&copy).context("make", &copy)?;
            let is_same_mount = |mount: &Handle| mount.shares_mount(file);
            let goes_on = self.mount.as_ref().is_none_or(is_same_mount);
            if goes_on {
                let attributes = Taken::from(file, self.privilege)?;
                self.directories.push((path.to_owned(), attributes));
            }
            return Ok(goes_on);
        }
        if kind.is_symlink() {
            symlink(file.target()?, &copy).context("make", &copy)?;
        } else if kind.is_file() {
            copy_file(file, &copy).context("copy to", &copy)?;
        } else {
            return Ok(false);
        }
        Taken::from(file, self.privilege)?.give(&copy)?;
        Ok(false)
    }
}

fn copy_file(from: &Handle, to: &Path) -> io::Result<()> {
    let mut to = File::create_new(to)?;
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

    fn give(&self, to: &Path) -> Result<(), Error> {
        match self {
            Self::All(attributes) => attributes.set(to),
            Self::ModeAndTimes(metadata) if metadata.is_symlink() => Ok(()),
            Self::ModeAndTimes(metadata) => file_attributes::set_mode_and_times(to, metadata),
        }
    }
}

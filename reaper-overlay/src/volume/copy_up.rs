//! The content of a tmpfs that begins as a copy of what it is mounted on (`tmpcopyup`).
//!
//! Directories, regular files and symlinks are copied, with what is mounted below left out. Other containers may
//! change the files meanwhile: all goes by descriptors, and what is gone is left out.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::symlink},
    path::{Path, PathBuf},
};

use crate::{
    contract::{Context, Error, user::Privilege},
    linux::{file_attributes, handle::Handle},
};

/// Copies what is in the directory `from` to the empty directory `to`, with the attributes of both.
pub(super) fn copy_up(from: Handle, to: PathBuf) -> Result<(), Error> {
    let privilege = Privilege::of_process();
    let mount = Handle::at(from.as_fd(), ".".as_ref()).context("open", &to)?;
    let mut left = vec![(from, to)];
    let mut directories = Vec::new();
    while let Some((from, to)) = left.pop() {
        for name in from.names().context("list", from.path())? {
            let found = Handle::at(from.as_fd(), &name).context("open", from.path())?;
            let Some(entry) = found else { continue };
            let copy = to.join(&name);
            let kind = entry.metadata().file_type();
            if kind.is_dir() {
                fs::create_dir(&copy).context("make", &copy)?;
                if mount
                    .as_ref()
                    .is_none_or(|mount| mount.shares_mount(&entry))
                {
                    left.push((entry, copy));
                }
            } else if kind.is_symlink() {
                symlink(entry.target()?, &copy).context("make", &copy)?;
                set_attributes(privilege, &entry, &copy)?;
            } else if kind.is_file() {
                copy_file(&entry, &copy).context("copy to", &copy)?;
                set_attributes(privilege, &entry, &copy)?;
            }
        }
        directories.push((from, to));
    }
    // Last, and inner ones first: making an entry changes the times of its directory.
    directories
        .iter()
        .rev()
        .try_for_each(|(from, to)| set_attributes(privilege, from, to))
}

fn copy_file(from: &Handle, to: &Path) -> io::Result<()> {
    let mut to = File::create_new(to)?;
    io::copy(&mut from.open()?, &mut to).map(drop)
}

fn set_attributes(privilege: Privilege, from: &Handle, to: &Path) -> Result<(), Error> {
    match privilege {
        Privilege::Root => file_attributes::copy(from, to),
        Privilege::User if from.metadata().is_symlink() => Ok(()),
        Privilege::User => file_attributes::set_mode_and_times(to, from.metadata()),
    }
}

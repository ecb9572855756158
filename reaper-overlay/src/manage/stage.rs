//! Copying what a commit puts on the host into its staging directories.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat};

use super::{
    change::{Stamp, changed},
    journal::{Journal, Places},
    sparse,
};
use crate::{
    contract::{Context, Error},
    linux::{
        file_attributes::{self, Attributes},
        handle::{FileId, Handle},
        walk::Cursor,
    },
};

/// The staging directories of a commit while they are filled.
pub(super) struct Stage<'a> {
    places: Places<'a>,
    /// The one that was used last.
    open: Option<(usize, Cursor)>,
    /// A name in the staging directory of each file that has several.
    links: HashMap<(usize, FileId), String>,
    /// Directories get their attributes, the times among them, after their entries.
    dirs: Vec<(usize, PathBuf, Attributes)>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(journal: &'a Journal) -> Result<Self, Error> {
        Ok(Self {
            places: journal.places()?,
            open: None,
            links: HashMap::new(),
            dirs: Vec::new(),
        })
    }

    /// A staging directory.
    pub(super) fn root(&mut self, at: usize) -> Result<Handle, Error> {
        self.places.staging(at)
    }

    fn cursor(&mut self, at: usize) -> Result<&mut Cursor, Error> {
        let cursor = match self.open.take() {
            Some((open, cursor)) if open == at => cursor,
            _ => Cursor::new(self.places.staging(at)?),
        };
        Ok(&mut self.open.insert((at, cursor)).1)
    }

    /// Copies `file` to the path `to` below a staging directory. `path` is where it will be.
    pub(super) fn copy(
        &mut self,
        at: usize,
        file: &Handle,
        to: &Path,
        path: &Path,
    ) -> Result<(), Error> {
        let key = (at, file.id());
        let first = self.links.get(&key).cloned();
        let metadata = file.metadata();
        let cursor = self.cursor(at)?;
        if !cursor.go_to_parent(to)? {
            return Err(changed(path));
        }
        let name = to.file_name().unwrap_or_default();
        if metadata.is_dir() {
            mkdirat(&*cursor, name, Mode::RWXU).context("make a copy of", path)?;
            let attributes = Attributes::read(file)?;
            self.dirs.push((at, to.to_owned(), attributes));
            return Ok(());
        }
        if let Some(first) = first {
            let root = self.places.staging(at)?;
            let cursor = self.cursor(at)?;
            return linkat(&root, first, cursor, name, AtFlags::empty())
                .context("make a copy of", path);
        }
        copy_one(file, cursor.as_fd(), name, path)?;
        let copy = cursor.entry(name)?.ok_or_else(|| changed(path))?;
        file_attributes::copy(file, &copy)?;
        if metadata.nlink() > 1 {
            let first = format!("{}.link", self.links.len());
            let root = self.places.staging(at)?;
            let cursor = self.cursor(at)?;
            linkat(cursor, name, &root, &first, AtFlags::empty())
                .context("make a copy of", path)?;
            self.links.insert(key, first);
        }
        Ok(())
    }

    /// What was copied to the path `to`.
    pub(super) fn copied(&mut self, at: usize, to: &Path) -> Result<Option<Handle>, Error> {
        self.cursor(at)?.find(to)
    }

    /// Gives the directories their attributes. Nothing can be staged after it.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        for (at, to, attributes) in std::mem::take(&mut self.dirs).into_iter().rev() {
            if let Some(copy) = self.copied(at, &to)? {
                attributes.set(&copy)?;
            }
        }
        Ok(())
    }
}

fn copy_one(
    file: &Handle,
    dir: std::os::fd::BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
) -> Result<(), Error> {
    let metadata = file.metadata();
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return symlinkat(file.target()?, dir, name).context("make a copy of", path);
    }
    if kind.is_file() {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let to = openat(dir, name, flags, Mode::RUSR | Mode::WUSR);
        let mut to = File::from(to.context("make a copy of", path)?);
        let mut from = file.open().context("open", path)?;
        let length = metadata.len();
        let copied = sparse::copy(&mut from, &mut to, length).context("make a copy of", path)?;
        let now = file.look_again()?;
        if copied < length || Stamp::of(&now) != Stamp::of(metadata) {
            return Err(changed(path));
        }
        return Ok(());
    }
    let kind = match () {
        () if kind.is_block_device() => FileType::BlockDevice,
        () if kind.is_char_device() => FileType::CharacterDevice,
        () if kind.is_fifo() => FileType::Fifo,
        () => FileType::Socket,
    };
    let mode = Mode::from_raw_mode(0o600);
    mknodat(dir, name, kind, mode, metadata.rdev()).context("make a copy of", path)
}

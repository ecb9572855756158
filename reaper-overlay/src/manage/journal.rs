//! What a commit is about to do on the host, on a disk before it does it.
//!
//! All that a commit puts on the host lies complete in a staging directory first. From the moment
//! at which the journal says so each step is a rename, or a change of attributes, that can be done
//! again and undone: so a commit that was killed is finished by the next call, and one of which a
//! step fails is undone. What it replaces or removes waits in the staging directory meanwhile.
//!
//! A workload may write to the directories in which this happens, if they are volumes of its own.
//! So the journal is not there, and says which files it means by their inodes: a device may have
//! another number after a boot, and both places of a file are on one mount.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, RenameFlags, mkdirat, renameat, renameat_with, syncfs},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    contract::{Context, Error},
    linux::{
        file_attributes::Attributes,
        files::{make_dir, read_versioned, remove_entry, remove_file, write_json_durably},
        handle::Handle,
        mountinfo::{escape, unescape},
        resolve::without_links,
        walk::{Cursor, joined},
    },
};

/// The version of the journal that this crate writes, and the newest that it reads.
const VERSION: u32 = 1;

/// A path on disk: any byte sequence, escaped as in mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct DiskPath(String);

impl DiskPath {
    pub(super) fn new(path: &Path) -> Self {
        Self(escape(path.as_os_str()))
    }

    pub(super) fn path(&self) -> PathBuf {
        unescape(self.0.as_bytes()).into()
    }
}

/// How far a commit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Nothing has been changed yet, or all: the staging directories are to be removed.
    Staging,
    /// Everything is staged and on disk: the steps are to be done.
    Applying,
    /// A step failed: those before it are to be undone.
    Undoing,
}

/// One change of the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Step {
    /// The mount, and the path below it.
    pub(super) mount: DiskPath,
    pub(super) path: DiskPath,
    pub(super) action: Action,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// The entry `name` of a staging directory takes the place of what is there.
    Put {
        staging: usize,
        name: String,
        inode: u64,
        /// What was there, if anything was.
        replaces: Option<u64>,
    },
    /// What is there is moved to the entry `name` of a staging directory.
    Remove {
        staging: usize,
        name: String,
        inode: u64,
    },
    /// What is there has other attributes afterwards.
    Set {
        before: Attributes,
        after: Attributes,
    },
}

/// A commit, as it is on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Journal {
    version: u32,
    pub(super) phase: Phase,
    /// The directories in which a staging directory is made.
    dirs: Vec<DiskPath>,
    /// What the staging directories are called.
    staging: String,
    pub(super) steps: Vec<Step>,
    #[serde(skip)]
    file: PathBuf,
}

impl Journal {
    pub(super) fn new(file: &Path, staging: String, dirs: &[PathBuf]) -> Self {
        Self {
            version: VERSION,
            phase: Phase::Staging,
            dirs: dirs.iter().map(|dir| DiskPath::new(dir)).collect(),
            staging,
            steps: Vec::new(),
            file: file.to_owned(),
        }
    }

    /// The journal of a commit that has not come to its end.
    pub(super) fn read(file: &Path) -> Result<Option<Self>, Error> {
        let journal: Option<Self> = read_versioned(file, VERSION)?;
        Ok(journal.map(|journal| Self {
            file: file.to_owned(),
            ..journal
        }))
    }

    /// Writes it. It is on disk afterwards.
    pub(super) fn write(&mut self, phase: Phase) -> Result<(), Error> {
        self.phase = phase;
        let dir = self.file.parent().unwrap_or(Path::new("/"));
        let write = || make_dir(dir).and_then(|()| write_json_durably(&self.file, self));
        match write() {
            // The commit of another base has just removed the directory.
            Err(error) if error.is_gone() => write(),
            written => written,
        }
    }

    /// Removes it, and its directory unless that holds anything else.
    fn remove(&self) -> Result<(), Error> {
        remove_file(&self.file)?;
        if let Some(dir) = self.file.parent() {
            // The next commit makes it again.
            let _ = std::fs::remove_dir(dir);
        }
        Ok(())
    }

    /// Makes the staging directories, for the caller alone.
    pub(super) fn make_staging(&self) -> Result<(), Error> {
        let mut places = self.places()?;
        for (at, dir) in self.dirs.iter().map(DiskPath::path).enumerate() {
            let name = dir.join(&self.staging);
            let parent = places.around(at)?;
            if let Some(left) =
                Handle::at(parent.as_fd(), self.staging.as_ref()).context("open", &name)?
            {
                // The journal of the commit that left it was lost.
                self.remove_staging(&dir, &parent, &left)?;
            }
            mkdirat(&parent, &self.staging, Mode::RWXU).context("make", name)?;
        }
        Ok(())
    }

    /// The way to the staging directories.
    pub(super) fn places(&self) -> Result<Places<'_>, Error> {
        let root = without_links(Path::new("/"))?.ok_or(Errno::NOENT);
        Ok(Places {
            journal: self,
            way: Cursor::new(root.context("open", "/")?),
        })
    }

    /// Whether `found` was made for the commits of the calling process's user alone.
    fn is_own(found: &Handle) -> bool {
        let metadata = found.metadata();
        let own = rustix::process::geteuid().as_raw() == metadata.uid();
        found.is_dir() && own && metadata.mode() & 0o077 == 0
    }

    fn remove_staging(&self, dir: &Path, parent: &Handle, found: &Handle) -> Result<(), Error> {
        if !Self::is_own(found) {
            return Err(Errno::EXIST).context("use as staging directory", dir.join(&self.staging));
        }
        remove_entry(parent.as_fd(), self.staging.as_ref())
    }

    /// Waits until all that is on the filesystems of the staging directories is on disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let mut places = self.places()?;
        for at in 0..self.dirs.len() {
            let dir = places.staging(at)?;
            let file = std::fs::File::open(dir.link()).with_context("open", || dir.path())?;
            syncfs(&file).with_context("write to disk", || dir.path())?;
        }
        Ok(())
    }

    /// Does all steps that are not done yet.
    pub(super) fn apply(&self, each: &mut dyn FnMut(&Path)) -> Result<(), Error> {
        let (mut host, mut places) = (Host::default(), self.places()?);
        for step in &self.steps {
            let path = step.full();
            each(&path);
            let (parent, name) = host.parent(step)?;
            match &step.action {
                Action::Put {
                    staging,
                    name: staged,
                    inode,
                    replaces,
                } => {
                    let staging = places.staging(*staging)?;
                    let found = Handle::at(parent, &name).context("open", &path)?;
                    let found = found.map(|found| found.inode());
                    if found == Some(*inode) {
                        continue;
                    }
                    // Another program has put something there since, as after a kill of the commit.
                    if found.is_some() && found != *replaces {
                        return Err(Error::Changed { path });
                    }
                    put(&staging, staged, *inode, parent, &name, &path)?;
                }
                Action::Remove {
                    staging,
                    name: to,
                    inode,
                } => {
                    let found = Handle::at(parent, &name).context("open", &path)?;
                    let Some(found) = found else { continue };
                    if found.inode() != *inode {
                        return Err(Error::Changed { path });
                    }
                    let staging = places.staging(*staging)?;
                    rename(parent, &name, staging.as_fd(), to.as_ref(), &path)?;
                }
                Action::Set { after, .. } => {
                    match Handle::at(parent, &name).context("open", &path)? {
                        Some(found) => after.set(&found)?,
                        None => return Err(Error::Changed { path }),
                    }
                }
            }
        }
        Ok(())
    }

    /// Undoes the steps that were done, the last one first. Goes on after an error, and returns the
    /// first one.
    pub(super) fn undo(&self) -> Result<(), Error> {
        let (mut host, mut places) = (Host::default(), self.places()?);
        let mut result = Ok(());
        for step in self.steps.iter().rev() {
            let undone = undo_step(&mut host, &mut places, step);
            result = result.and(undone);
        }
        result
    }

    /// Removes the staging directories with what is left in them, and the journal.
    pub(super) fn clean_up(&self) -> Result<(), Error> {
        for dir in self.dirs.iter().map(DiskPath::path) {
            let Some(parent) = without_links(&dir)? else {
                continue;
            };
            if let Some(found) =
                Handle::at(parent.as_fd(), self.staging.as_ref()).context("open", &dir)?
            {
                self.remove_staging(&dir, &parent, &found)?;
            }
        }
        self.remove()
    }
}

fn undo_step(host: &mut Host, places: &mut Places<'_>, step: &Step) -> Result<(), Error> {
    let path = step.full();
    let (parent, name) = host.parent(step)?;
    let found = Handle::at(parent, &name).context("open", &path)?;
    match &step.action {
        Action::Put {
            staging,
            name: staged,
            inode,
            ..
        } => {
            let staging = places.staging(*staging)?;
            let at = |name: &OsStr| Handle::at(staging.as_fd(), name).context("open", &path);
            let (new, old) = (OsString::from(staged), replaced(staged));
            match found {
                Some(found) if found.inode() == *inode => {
                    if at(&new)?.is_some() {
                        return exchange(&staging, &new, parent, &name).context("rename to", path);
                    }
                    rename(parent, &name, staging.as_fd(), &new, &path)?;
                }
                Some(_) => return Ok(()),
                None => {}
            }
            if at(&old)?.is_some() {
                rename(staging.as_fd(), &old, parent, &name, &path)?;
            }
            Ok(())
        }
        Action::Remove {
            staging, name: to, ..
        } => {
            let staging = places.staging(*staging)?;
            let is_there = Handle::at(staging.as_fd(), to.as_ref()).context("open", &path)?;
            if found.is_none() && is_there.is_some() {
                rename(staging.as_fd(), to.as_ref(), parent, &name, &path)?;
            }
            Ok(())
        }
        Action::Set { before, .. } => found.map_or(Ok(()), |found| before.set(&found)),
    }
}

/// The way to the staging directories of a commit, by descriptors from one to the next.
pub(super) struct Places<'a> {
    journal: &'a Journal,
    way: Cursor,
}

impl Places<'_> {
    /// The directory in which a staging directory is, or is to be made.
    fn around(&mut self, at: usize) -> Result<Handle, Error> {
        let dir = self.dir(at);
        match self.way.find(relative(&dir))? {
            Some(found) if found.is_dir() => Ok(found),
            _ => Err(Errno::NOTDIR).context(OPEN, dir),
        }
    }

    /// A staging directory.
    pub(super) fn staging(&mut self, at: usize) -> Result<Handle, Error> {
        let dir = self.dir(at).join(&self.journal.staging);
        match self.way.find(relative(&dir))? {
            Some(found) if Journal::is_own(&found) => Ok(found),
            _ => Err(Errno::NOTDIR).context(OPEN, dir),
        }
    }

    fn dir(&self, at: usize) -> PathBuf {
        let dir = self.journal.dirs.get(at);
        dir.map(DiskPath::path).unwrap_or_default()
    }
}

const OPEN: &str = "open without following symlinks";

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

impl Step {
    pub(super) fn full(&self) -> PathBuf {
        joined(&self.mount.path(), &self.path.path())
    }
}

/// The host's mounts in which steps are done.
#[derive(Default)]
struct Host {
    at: Option<(DiskPath, Cursor)>,
}

impl Host {
    /// The directory of what `step` changes, which must be there, and its name in it.
    fn parent(&mut self, step: &Step) -> Result<(BorrowedFd<'_>, OsString), Error> {
        let changed = || Error::Changed { path: step.full() };
        let mount = &step.mount;
        if self.at.as_ref().is_none_or(|(at, _)| at != mount) {
            let root = without_links(&mount.path())?;
            self.at = root.map(|root| (mount.clone(), Cursor::new(root)));
        }
        let (_, cursor) = self.at.as_mut().ok_or_else(changed)?;
        let path = step.path.path();
        if !cursor.go_to_parent(&path)? {
            return Err(changed());
        }
        let name = path.file_name().unwrap_or(OsStr::new(".")).to_owned();
        Ok((cursor.dir().as_fd(), name))
    }
}

/// What a staged file replaces is called so in the staging directory, where the filesystem cannot
/// exchange two files.
fn replaced(staged: &str) -> OsString {
    OsString::from(format!("{staged}.old"))
}

fn put(
    staging: &Handle,
    staged: &str,
    inode: u64,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
) -> Result<(), Error> {
    let found = Handle::at(parent, name).context("open", path)?;
    let new = Handle::at(staging.as_fd(), staged.as_ref()).context("open", path)?;
    if new.is_none_or(|new| new.inode() != inode) {
        return Err(Error::Changed {
            path: path.to_owned(),
        });
    }
    if found.is_some() {
        match exchange(staging, staged.as_ref(), parent, name) {
            Ok(()) => return Ok(()),
            Err(errno) if is_unsupported(errno) => {}
            Err(errno) => return Err(errno).context("rename to", path),
        }
        let old = replaced(staged);
        rename(parent, name, staging.as_fd(), &old, path)?;
    }
    rename(staging.as_fd(), staged.as_ref(), parent, name, path)
}

fn exchange(
    staging: &Handle,
    staged: &OsStr,
    parent: BorrowedFd<'_>,
    name: &OsStr,
) -> Result<(), Errno> {
    renameat_with(staging, staged, parent, name, RenameFlags::EXCHANGE)
}

/// Whether the filesystem, or a filter of system calls, has no such way of renaming.
fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::PERM)
}

/// Renames to a name that is free.
fn rename(
    from: BorrowedFd<'_>,
    name: &OsStr,
    to: BorrowedFd<'_>,
    new: &OsStr,
    path: &Path,
) -> Result<(), Error> {
    match renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
        Err(errno) if is_unsupported(errno) => renameat(from, name, to, new),
        renamed => renamed,
    }
    .map_err(io::Error::from)
    .context("rename", path)
}

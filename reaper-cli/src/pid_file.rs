//! `--pid-file`: as the target of a shell's `>`, but never half-written.
//!
//! Symbolic links are followed. A regular file, or nothing, is replaced by a rename, so that a
//! reader sees all of the pid or no file. A FIFO or a character device is written to. A FIFO without
//! a reader is waited for a few seconds: a shell would wait for ever, and hold up an engine.

use std::{
    ffi::OsString,
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, renameat, unlinkat};

use crate::error::{Error, Result};

/// How long a FIFO may be without a reader.
const READER: Duration = Duration::from_secs(5);

/// The kernel's limit for a path's symbolic links.
const LINKS: usize = 40;

/// A pid file that was written.
#[derive(Debug)]
pub(crate) struct PidFile {
    /// Where a regular file is, and which one.
    regular: Option<(PathBuf, u64)>,
}

impl PidFile {
    /// Writes `pid` to `path`.
    pub(crate) fn write(path: &Path, pid: u32) -> Result<Self> {
        let operation = format!("write the pid file {}", path.display());
        put(path, pid.to_string().as_bytes()).map_err(Error::io(operation))
    }

    /// Removes the file, if it is a regular one that was not replaced since: what it named was
    /// undone.
    pub(crate) fn undo(self) {
        if let Some((path, inode)) = self.regular
            && fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == inode)
        {
            // The reason for undoing is the error to be told.
            let _ = fs::remove_file(&path);
        }
    }
}

fn put(path: &Path, content: &[u8]) -> io::Result<PidFile> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let there = match openat(CWD, path, flags, Mode::empty()) {
        Ok(there) => there,
        Err(rustix::io::Errno::NOENT) => return replace(&end_of_links(path)?, content),
        Err(errno) => return Err(errno.into()),
    };
    let refused = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what.to_owned()));
    match FileType::from_raw_mode(fstat(&there)?.st_mode) {
        FileType::RegularFile => match name_of(&there)? {
            Some(path) => replace(&path, content),
            // Removed, or of another mount namespace: it has no name to be replaced.
            None => pour(reopen(&there, nix::libc::O_TRUNC)?, content),
        },
        FileType::Fifo => pour(open_fifo(&there)?, content),
        FileType::CharacterDevice => pour(reopen(&there, nix::libc::O_NOCTTY)?, content),
        FileType::Directory => Err(io::Error::from_raw_os_error(nix::libc::EISDIR)),
        FileType::BlockDevice => refused("it is a block device, whose contents it would destroy"),
        _ => refused("it is neither a file nor a FIFO nor a character device"),
    }
}

fn pour(mut file: File, content: &[u8]) -> io::Result<PidFile> {
    file.write_all(content)?;
    Ok(PidFile { regular: None })
}

/// Where a path leads whose last component, or the link there, names nothing yet.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(nix::libc::ELOOP))
}

/// The name of an open file, if it still has it.
fn name_of(file: &OwnedFd) -> io::Result<Option<PathBuf>> {
    let path = fs::read_link(by_descriptor(file))?;
    let opened = fstat(file)?;
    let is_it = |found: fs::Metadata| (found.dev(), found.ino()) == (opened.st_dev, opened.st_ino);
    Ok(fs::symlink_metadata(&path).is_ok_and(is_it).then_some(path))
}

fn by_descriptor(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn reopen(file: &OwnedFd, flags: i32) -> io::Result<File> {
    let path = by_descriptor(file);
    File::options().write(true).custom_flags(flags).open(path)
}

/// Opens a FIFO for writing, which waits for a reader.
fn open_fifo(fifo: &OwnedFd) -> io::Result<File> {
    match reopen(fifo, nix::libc::O_NONBLOCK) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => {}
        opened => return opened,
    }
    let (sender, receiver) = mpsc::channel();
    let waiting = fifo.try_clone()?;
    let opener = thread::spawn(move || sender.send(reopen(&waiting, 0)));
    if let Ok(opened) = receiver.recv_timeout(READER) {
        return opened;
    }
    // This program as the reader ends the wait of the thread.
    let path = by_descriptor(fifo);
    let reader = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    let _ = opener.join();
    drop(reader);
    let reason = format!("no process has opened the FIFO for reading for {READER:?}");
    Err(io::Error::new(io::ErrorKind::TimedOut, reason))
}

/// Puts a new file in the place of `path`. It is staged beside it under a name that no other user
/// of the folder can foresee.
fn replace(path: &Path, content: &[u8]) -> io::Result<PidFile> {
    let invalid = || io::Error::from_raw_os_error(nix::libc::EISDIR);
    let name = path.file_name().ok_or_else(invalid)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, parent, folder, Mode::empty())?;
    let mut staged = OsString::from(".");
    staged.push(format!("{:016x}", RandomState::new().hash_one(content)));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Less the umask, as for any file that a shell makes.
    let mode = Mode::from_raw_mode(0o666);
    let mut file = File::from(openat(folder.as_fd(), &staged, flags, mode)?);
    let written = file
        .write_all(content)
        .and_then(|()| Ok(renameat(&folder, &staged, &folder, name)?));
    if let Err(error) = written {
        // The first error is the one to be told.
        let _ = unlinkat(&folder, &staged, rustix::fs::AtFlags::empty());
        return Err(error);
    }
    let inode = file.metadata()?.ino();
    let regular = Some((path.to_owned(), inode));
    Ok(PidFile { regular })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use super::*;

    fn write(path: &Path, pid: u32) -> Result<PidFile> {
        PidFile::write(path, pid)
    }

    fn fifo(path: &Path) {
        let kind = FileType::Fifo;
        rustix::fs::mknodat(CWD, path, kind, Mode::RWXU, 0).unwrap();
    }

    #[test]
    fn the_file_holds_the_pid_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        write(&path, 42).unwrap();
        let file = write(&path, 43).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "43");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        file.undo();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = write(Path::new("/nowhere/at/all/pid"), 1).unwrap_err();
        assert!(
            error.line().contains("/nowhere/at/all/pid"),
            "{}",
            error.line()
        );
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path(), 1).unwrap_err();
        assert!(error.line().contains("directory"), "{}", error.line());
    }

    #[test]
    fn a_symbolic_link_stays_and_its_target_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let [link, target] = ["link", "target"].map(|name| dir.path().join(name));
        symlink("target", &link).unwrap();
        for pid in [42, 43] {
            write(&link, pid).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), pid.to_string());
            assert!(link.is_symlink());
        }
        symlink("circle", dir.path().join("circle")).unwrap();
        assert!(write(&dir.path().join("circle"), 1).is_err());
    }

    #[test]
    fn the_reader_of_a_fifo_gets_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        fifo(&path);
        let reader = thread::spawn({
            let path = path.clone();
            move || fs::read_to_string(path).unwrap()
        });
        write(&path, 42).unwrap().undo();
        assert_eq!(reader.join().unwrap(), "42");
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_fifo_without_a_reader_is_an_error_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        fifo(&path);
        let error = write(&path, 42).unwrap_err();
        assert!(error.line().contains("for reading"), "{}", error.line());
    }

    #[test]
    fn a_device_is_written_to_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        for (name, minor) in [("null", 3), ("full", 7)] {
            let path = dir.path().join(name);
            let device = rustix::fs::makedev(1, minor);
            rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::RWXU, device).unwrap();
            assert_eq!(write(&path, 42).is_ok(), name == "null");
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            assert!(kind.is_char_device());
        }
    }

    #[test]
    fn a_descriptor_of_a_removed_file_gets_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        fs::remove_file(&path).unwrap();
        write(
            Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())),
            42,
        )
        .unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "42");
    }
}

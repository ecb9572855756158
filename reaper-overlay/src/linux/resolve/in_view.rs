//! Opening paths in the view that the calling process has entered.
//!
//! The author of a bundle or a process chooses these paths, and what runs in the view can change
//! what lies on the way. Symlinks are followed as the process itself would follow them, with one
//! exception: not those that are no text but a way to another process's files (`/proc/PID/root`,
//! `/proc/PID/cwd`, `/proc/PID/fd/N`). They lead out of the view, whatever its mounts are.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setgroups};
use rustix::{
    fs::{
        Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, accessat, fstat, fstatfs,
        mkdirat, openat, openat2, readlinkat,
    },
    io::Errno,
    process::{fchdir, umask},
};

use super::MAX_LINKS;
use crate::{
    contract::{Context, Error},
    linux::handle::fd_link,
};

/// The mode of the directories that are made for a process, whatever the caller's umask.
const DIR_MODE: u32 = 0o755;
/// `f_type` of proc(5).
const PROC_MAGIC: u64 = 0x9fa0;
/// `f_type` of an overlay.
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// Why a path was not followed to its end (`ELOOP`).
#[derive(Debug)]
struct LeadsOut;

impl fmt::Display for LeadsOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it leads through a link to another process's files, such as /proc/PID/root, \
             or through too many links: name it by a path of the container's own",
        )
    }
}

impl std::error::Error for LeadsOut {}

/// Opens what `path` names in the calling process's root, as a place (`O_PATH`): nothing of it is
/// read, and opening a device or a FIFO has no effect.
///
/// # Errors
/// Those of open(2), and an error that says so where the path leads through a link to another
/// process's files (proc(5)).
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    place(path, OFlags::empty()).map_err(explained)
}

/// Whether [`open`] refused a path for where it leads.
pub fn leads_out(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|source| source.is::<LeadsOut>())
}

/// Makes the directory `path` the calling process's working directory, on the same terms as
/// [`open`].
///
/// # Errors
/// Those of [`open`] and chdir(2).
pub fn change_dir(path: &Path) -> io::Result<()> {
    let dir = place(path, OFlags::DIRECTORY).map_err(explained)?;
    Ok(fchdir(dir)?)
}

/// The same; `/` where that is not possible: a process that joins later names its own directory.
pub(crate) fn change_dir_or_root(path: &Path) -> Result<(), Error> {
    change_dir(path)
        .or_else(|_| change_dir(Path::new("/")))
        .context("change to", "/")
}

/// Reads the regular file `path`, on the same terms as [`open`], up to `limit` bytes.
///
/// # Errors
/// Those of [`open`] and read(2); `InvalidInput` where it is no regular file.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let place = open(path)?;
    if FileType::from_raw_mode(fstat(&place)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ));
    }
    // The place's own file, not what its path names by now.
    let own = fd_link(&place);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, own, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A directory, or the file itself, that keeps the calling process from what a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denial {
    /// Where it is, without symlinks.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Whether it lies in an overlay, so that a container may have changed it.
    pub in_overlay: bool,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            mode,
            uid,
            gid,
            in_overlay,
        } = self;
        write!(f, "{} (mode {mode:04o}, owner {uid}:{gid})", path.display())?;
        if *in_overlay {
            f.write_str(
                "; if a container has changed that, `overlay diff` shows it, and `overlay reset` undoes it",
            )?;
        }
        Ok(())
    }
}

/// What keeps the calling process from executing `path`, or from searching it where it is a directory: the
/// first directory on the way that it may not search, or the file. `None` where nothing on the way
/// does, or something else is wrong with the path.
pub fn denial(path: &Path) -> Option<Denial> {
    let (at, found) = match walk_names(path) {
        Ok((at, found)) => {
            // By the descriptor: its name could lead elsewhere by now.
            let allowed = accessat(CWD, fd_link(&found), Access::EXEC_OK, AtFlags::EACCESS);
            if allowed != Err(Errno::ACCESS) {
                return None;
            }
            (at, found)
        }
        Err(stopped) if stopped.errno == Errno::ACCESS => stopped.at?,
        Err(_) => return None,
    };
    let stat = fstat(&found).ok()?;
    Some(Denial {
        path: at,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        in_overlay: is(&found, OVERLAY_MAGIC).unwrap_or(false),
    })
}

/// Makes `path` the working directory, and makes what is missing of it: with the rights of `user`
/// (uid and gid), if the process will be another user than the caller, and with the caller's only
/// where it goes into an overlay. What a process may not write to, such as a volume, it cannot
/// have changed by naming a working directory.
pub(crate) fn make_and_change_dir(path: &Path, user: Option<(u32, u32)>) -> Result<(), Error> {
    const MAKE: &str = "make the working directory";
    let (mut dir, missing) = deepest(path).map_err(explained).context(MAKE, path)?;
    if !missing.is_empty() {
        let mask = umask(Mode::empty());
        let made = missing.iter().try_for_each(|name| {
            dir = make(&dir, name, user)?;
            Ok(())
        });
        umask(mask);
        made.map_err(explained).context(MAKE, path)?;
    }
    fchdir(dir).context("change to", path)
}

/// The last directory on the way of `path` that is there, and the names that are missing in it.
fn deepest(path: &Path) -> rustix::io::Result<(OwnedFd, Vec<OsString>)> {
    let mut missing = VecDeque::new();
    let mut there = path;
    loop {
        match place(there, OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            found => return found.map(|dir| (dir, without_parents(missing))),
        }
        let mut parts = there.components();
        match parts.next_back() {
            Some(Component::Normal(name)) => missing.push_front(name.to_owned()),
            Some(Component::ParentDir) => missing.push_front(OsString::from("..")),
            _ => return Err(Errno::NOENT),
        }
        there = parts.as_path();
    }
}

/// The same names with each `..` taken for what it undoes.
fn without_parents(names: VecDeque<OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    for name in names {
        if name == ".." {
            kept.pop();
        } else {
            kept.push(name);
        }
    }
    kept
}

fn make(dir: &OwnedFd, name: &OsStr, user: Option<(u32, u32)>) -> rustix::io::Result<OwnedFd> {
    let mkdir = || match mkdirat(dir, name, Mode::from_raw_mode(DIR_MODE)) {
        // Another container has just made it.
        Err(Errno::EXIST) => Ok(()),
        made => made,
    };
    let made = match user {
        Some(user) => with_rights_of(user, mkdir),
        None => mkdir(),
    };
    match made {
        Err(Errno::ACCESS | Errno::PERM) if is(dir, OVERLAY_MAGIC)? => mkdir()?,
        made => made?,
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Does `work` with the rights over files that a user has (credentials(7)), who is in no group but
/// his own. The calling process is about to become that user, groups included.
fn with_rights_of<T>((uid, gid): (u32, u32), work: impl FnOnce() -> T) -> T {
    // Without root it is refused, and there is no other user to become.
    let _ = setgroups(&[]);
    let own_gid = setfsgid(Gid::from_raw(gid));
    let own_uid = setfsuid(Uid::from_raw(uid));
    let done = work();
    setfsuid(own_uid);
    setfsgid(own_gid);
    done
}

fn explained(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => io::Error::other(LeadsOut),
        errno => errno.into(),
    }
}

fn place(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        // As a seccomp filter says that does not know the call. A path that may not be searched is
        // refused with EACCES.
        Err(Errno::NOSYS | Errno::PERM) => walk(path, flags),
        opened => opened,
    }
}

/// The same, a name at a time.
fn walk(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let (_, found) = walk_names(path).map_err(|stopped| stopped.errno)?;
    let is_dir = || fstat(&found).map(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
    match flags.contains(OFlags::DIRECTORY) && !is_dir()? {
        true => Err(Errno::NOTDIR),
        false => Ok(found),
    }
}

/// A directory or a file, and its path without symlinks.
type Place = (PathBuf, OwnedFd);

/// Why a walk has ended early, and the directory that it had come to.
struct Stopped {
    errno: Errno,
    at: Option<Place>,
}

impl From<Errno> for Stopped {
    fn from(errno: Errno) -> Self {
        Self { errno, at: None }
    }
}

fn walk_names(path: &Path) -> Result<Place, Stopped> {
    let step = OFlags::PATH | OFlags::CLOEXEC;
    let start = |from: &str| openat(CWD, from, step | OFlags::DIRECTORY, Mode::empty());
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT.into());
    }
    let mut rest: VecDeque<OsString> = super::parts(path);
    let from = if path.is_absolute() { "/" } else { "." };
    let (mut at, mut current) = (PathBuf::from(from), start(from)?);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        let next = match openat(&current, &name, step | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(next) => next,
            Err(errno) => {
                let at = Some((at, current));
                return Err(Stopped { errno, at });
            }
        };
        if FileType::from_raw_mode(fstat(&next)?.st_mode) != FileType::Symlink {
            current = next;
            if name == ".." {
                at.pop();
            } else {
                at.push(name);
            }
            continue;
        }
        links += 1;
        if links > MAX_LINKS || is_magic(&current, &next)? {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&next, "", Vec::new())
            .map_err(Stopped::from)?
            .into_bytes();
        let target = PathBuf::from(OsString::from_vec(target));
        if target.is_absolute() {
            (at, current) = (PathBuf::from("/"), start("/")?);
        }
        for part in super::parts(&target).into_iter().rev() {
            rest.push_front(part);
        }
    }
    Ok((at, current))
}

/// Whether a link in `dir` is no text but a way to a process's files. All that proc(5) has are; only
/// in its root there are others (`self`, `mounts`).
fn is_magic(dir: impl AsFd, link: impl AsFd) -> rustix::io::Result<bool> {
    /// What the root of every proc has (`PROC_ROOT_INO`).
    const ROOT_INODE: u64 = 1;
    Ok(is(&link, PROC_MAGIC)? && fstat(dir)?.st_ino != ROOT_INODE)
}

fn is(file: impl AsFd, magic: u64) -> rustix::io::Result<bool> {
    Ok(fstatfs(file)?.f_type as u64 == magic)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        thread,
    };

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use super::*;

    /// Runs `test` as it is, and where a filter answers openat2(2) with each of these.
    fn with_and_without_openat2(test: fn()) {
        test();
        for errno in [nix::libc::ENOSYS, nix::libc::EPERM] {
            let filter = SeccompFilter::new(
                BTreeMap::from([(nix::libc::SYS_openat2, Vec::new())]),
                SeccompAction::Allow,
                SeccompAction::Errno(errno.unsigned_abs()),
                std::env::consts::ARCH.try_into().unwrap(),
            );
            let program: BpfProgram = filter.unwrap().try_into().unwrap();
            // The filter holds for this thread alone.
            let filtered = thread::spawn(move || {
                apply_filter(&program).unwrap();
                test();
            });
            filtered.join().unwrap();
        }
    }

    #[test]
    fn a_path_does_not_lead_through_another_processes_files() {
        with_and_without_openat2(|| {
            let dir = tempfile::tempdir().unwrap();
            let link = dir.path().join("link");
            let own = std::process::id();
            symlink(format!("/proc/{own}/root/tmp"), &link).unwrap();
            for path in [
                format!("/proc/{own}/root/tmp"),
                format!("/proc/{own}/root"),
                format!("/proc/{own}/cwd"),
                format!("/proc/{own}/exe"),
                "/proc/self/fd/0".to_owned(),
                "/proc/thread-self/root/etc".to_owned(),
                "/dev/fd/0".to_owned(),
                link.display().to_string(),
            ] {
                let error = open(Path::new(&path)).unwrap_err().to_string();
                assert!(error.contains("another process's files"), "{path}: {error}");
            }
        });
    }

    #[test]
    fn a_path_is_followed_as_by_the_process_itself() {
        with_and_without_openat2(|| {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().canonicalize().unwrap();
            fs::create_dir_all(root.join("real/inner")).unwrap();
            fs::write(root.join("real/file"), "text").unwrap();
            symlink(root.join("real"), root.join("absolute")).unwrap();
            symlink("absolute/inner/../file", root.join("relative")).unwrap();
            assert_eq!(read(&root.join("relative"), 9).unwrap(), b"text");
            assert_eq!(read(&root.join("relative"), 1).unwrap(), b"t");
            for path in [
                "/",
                "/proc/self/task",
                "/proc/mounts",
                "/../proc",
                "/dev/null",
            ] {
                open(Path::new(path)).unwrap();
            }
            for (path, errno) in [
                (root.join("missing"), nix::libc::ENOENT),
                (root.join("real/file/x"), nix::libc::ENOTDIR),
                (PathBuf::new(), nix::libc::ENOENT),
            ] {
                let error = open(&path).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(errno), "{path:?}: {error}");
            }
            let error = place(&root.join("real/file"), OFlags::DIRECTORY).unwrap_err();
            assert_eq!(error, Errno::NOTDIR);
        });
    }

    #[test]
    fn what_denies_a_path_to_a_user_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        set(&root, 0o755).unwrap();
        fs::create_dir_all(root.join("closed/inner")).unwrap();
        fs::write(root.join("closed/inner/program"), "").unwrap();
        fs::write(root.join("plain"), "").unwrap();
        symlink("closed/../closed/inner", root.join("link")).unwrap();
        set(&root.join("closed"), 0o700).unwrap();
        set(&root.join("plain"), 0o644).unwrap();
        let asked = |path: &str| {
            let path = root.join(path);
            // The rights over files are those of one thread.
            let found = thread::spawn(move || with_rights_of((1234, 1234), || denial(&path)));
            found
                .join()
                .unwrap()
                .map(|denial| (denial.path, denial.mode))
        };
        let closed = Some((root.join("closed"), 0o700));
        assert_eq!(asked("closed/inner/program"), closed);
        assert_eq!(asked("link/program"), closed);
        assert_eq!(asked("closed"), closed);
        assert_eq!(asked("plain"), Some((root.join("plain"), 0o644)));
        set(&root.join("closed"), 0o711).unwrap();
        let program = (root.join("closed/inner/program"), 0o644);
        assert_eq!(asked("link/program"), Some(program));
        assert_eq!(asked("link"), None);
        assert_eq!(asked("missing"), None);
    }

    #[test]
    fn reading_fifo_device_or_directory_fails_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&fifo, Path::new("/dev/zero"), dir.path()] {
            let error = read(path, 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
    }

    #[test]
    fn missing_directories_are_found_from_the_last_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (_, missing) = deepest(&dir.path().join("a/../b/./c")).unwrap();
        assert_eq!(missing, ["b", "c"]);
        let (_, missing) = deepest(dir.path()).unwrap();
        assert!(missing.is_empty());
    }
}

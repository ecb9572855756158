//! Reading and copying what a file has besides its content.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Gid, Timespec, Timestamps, Uid, XattrFlags, chownat, getxattr, lgetxattr,
        listxattr, llistxattr, lremovexattr, lsetxattr, removexattr, setxattr, utimensat,
    },
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::handle::Handle;
use crate::contract::{Context, Error};

/// The namespaces of overlay's own extended attributes, as root and in a user namespace.
const OWN_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Marks a directory of an upper layer that replaces the host's one of the same path and that no
/// container has made. Overlay does not show the mark in the view.
const PLACEHOLDER: &str = "user.overlay.reaper-made";

/// The name and the value of an extended attribute.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// The file that is meant: by a path, where it may be a symlink itself, or by a handle.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FileRef<'a> {
    Path(&'a Path),
    Handle(&'a Handle),
}

impl<'a> From<&'a Path> for FileRef<'a> {
    fn from(path: &'a Path) -> Self {
        Self::Path(path)
    }
}

impl<'a> From<&'a PathBuf> for FileRef<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Self::Path(path)
    }
}

impl<'a> From<&'a Handle> for FileRef<'a> {
    fn from(handle: &'a Handle) -> Self {
        Self::Handle(handle)
    }
}

impl FileRef<'_> {
    /// What goes to the kernel. A handle's is a link to the file, which is to be followed: the
    /// calls for attributes refuse a descriptor that was opened with `O_PATH`.
    fn name(&self) -> Cow<'_, Path> {
        match self {
            Self::Path(path) => Cow::Borrowed(path),
            Self::Handle(handle) => Cow::Owned(handle.link()),
        }
    }

    /// For messages.
    fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.to_path_buf(),
            Self::Handle(handle) => handle.path(),
        }
    }

    fn metadata(&self) -> Result<fs::Metadata, Error> {
        match self {
            Self::Path(path) => fs::symlink_metadata(path).context("stat", path),
            Self::Handle(handle) => handle.look_again(),
        }
    }

    fn list(&self, names: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Path(path) => llistxattr(*path, names),
            Self::Handle(_) => listxattr(&*self.name(), names),
        }
    }

    fn get(&self, name: &OsStr, value: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Path(path) => lgetxattr(*path, name, value),
            Self::Handle(_) => getxattr(&*self.name(), name, value),
        }
    }

    fn set(&self, name: &OsStr, value: &[u8]) -> Result<(), Errno> {
        let flags = XattrFlags::empty();
        match self {
            Self::Path(path) => lsetxattr(*path, name, value, flags),
            Self::Handle(_) => setxattr(&*self.name(), name, value, flags),
        }
    }

    fn remove(&self, name: &OsStr) -> Result<(), Errno> {
        match self {
            Self::Path(path) => lremovexattr(*path, name),
            Self::Handle(_) => removexattr(&*self.name(), name),
        }
    }

    fn set_owner(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Self::Path(path) => chownat(CWD, *path, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
            Self::Handle(handle) => chownat(handle, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        let flags = match self {
            Self::Path(_) => AtFlags::SYMLINK_NOFOLLOW,
            Self::Handle(_) => AtFlags::empty(),
        };
        utimensat(CWD, &*self.name(), times, flags)
    }
}

/// The extended attributes of a file, without the overlay's own, sorted by name.
pub(crate) fn xattrs<'a>(file: impl Into<FileRef<'a>>) -> Result<Vec<Xattr>, Error> {
    let file = file.into();
    let mut list = vec![0u8; 1024];
    let length = loop {
        match file.list(list.as_mut_slice()) {
            Ok(length) => break length,
            Err(Errno::RANGE) => list.resize(list.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno).with_context("list the attributes of", || file.path()),
        }
    };
    let mut found = Vec::new();
    for name in list[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        if OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        if let Some(value) = xattr(file, OsStr::from_bytes(name))? {
            found.push((name.to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// One extended attribute of a file.
pub(crate) fn xattr<'a>(
    file: impl Into<FileRef<'a>>,
    name: &OsStr,
) -> Result<Option<Vec<u8>>, Error> {
    let file = file.into();
    let mut value = vec![0u8; 256];
    loop {
        match file.get(name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => value.resize(value.len() * 4, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno).with_context("read an attribute of", || file.path()),
        }
    }
}

/// Whether the overlay marked a directory as one that hides the lower one.
pub(crate) fn is_opaque<'a>(dir: impl Into<FileRef<'a>>) -> Result<bool, Error> {
    let dir = dir.into();
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        if xattr(dir, OsStr::new(name))?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Marks the directory `path` as made by Reaper, not by a container. On a filesystem without
/// extended attributes there is no mark.
pub(crate) fn mark_placeholder_dir(path: &Path) -> Result<(), Error> {
    match lsetxattr(path, PLACEHOLDER, b"y", XattrFlags::empty()) {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno).context("mark", path),
    }
}

/// Whether [`mark_placeholder_dir`] was called for this file.
pub(crate) fn is_placeholder_dir(file: &Handle) -> Result<bool, Error> {
    Ok(file.is_dir() && xattr(file, OsStr::new(PLACEHOLDER))?.is_some())
}

/// Whether `metadata` is that of the overlay's mark for a deleted file.
pub(crate) fn is_whiteout(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// What a file has besides its content: the owner, the mode, extended attributes and times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    xattrs: Vec<Xattr>,
    /// Seconds since 1970, negative before, and nanoseconds.
    accessed: (i64, i64),
    modified: (i64, i64),
}

impl Attributes {
    pub(crate) fn read<'a>(file: impl Into<FileRef<'a>>) -> Result<Self, Error> {
        let file = file.into();
        let metadata = file.metadata()?;
        Ok(Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & 0o7777,
            xattrs: xattrs(file)?,
            accessed: (metadata.atime(), metadata.atime_nsec()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    /// Gives them to `file`, with which it has no others but a label of SELinux's.
    pub(crate) fn set<'a>(&self, file: impl Into<FileRef<'a>>) -> Result<(), Error> {
        let file = file.into();
        file.set_owner(self.uid, self.gid)
            .with_context("change the owner of", || file.path())?;
        if !file.metadata()?.file_type().is_symlink() {
            // After the owner: changing that clears the set-id bits.
            fs::set_permissions(file.name(), fs::Permissions::from_mode(self.mode))
                .with_context("change the mode of", || file.path())?;
        }
        for (name, _) in xattrs(file)? {
            // SELinux gives one to each file, and lets no process remove it.
            let stays = name == b"security.selinux";
            if !stays && !self.xattrs.iter().any(|(keep, _)| *keep == name) {
                file.remove(OsStr::from_bytes(&name))
                    .with_context("remove an attribute of", || file.path())?;
            }
        }
        for (name, value) in &self.xattrs {
            match file.set(OsStr::from_bytes(name), value) {
                // The other filesystem has no place for it.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => {
                    return Err(errno).with_context("set an attribute of", || file.path());
                }
            }
        }
        set_times(file, self.accessed, self.modified)
    }
}

/// Gives `to` the owner, mode, extended attributes and times of `from`.
pub(crate) fn copy<'a, 'b>(
    from: impl Into<FileRef<'a>>,
    to: impl Into<FileRef<'b>>,
) -> Result<(), Error> {
    Attributes::read(from)?.set(to)
}

/// Gives the directory or file `to` the mode and the times of `from`: all that an ordinary user can
/// set.
pub(crate) fn copy_mode_and_times(from: &Path, to: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(from).context("stat", from)?;
    set_mode_and_times(to, &metadata)
}

/// The same, with what `metadata` says.
pub(crate) fn set_mode_and_times<'a>(
    to: impl Into<FileRef<'a>>,
    metadata: &fs::Metadata,
) -> Result<(), Error> {
    let to = to.into();
    fs::set_permissions(
        to.name(),
        fs::Permissions::from_mode(metadata.mode() & 0o7777),
    )
    .with_context("change the mode of", || to.path())?;
    set_times(
        to,
        (metadata.atime(), metadata.atime_nsec()),
        (metadata.mtime(), metadata.mtime_nsec()),
    )
}

fn set_times(to: FileRef<'_>, accessed: (i64, i64), modified: (i64, i64)) -> Result<(), Error> {
    let time = |(seconds, nanoseconds): (i64, i64)| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as _,
    };
    let times = Timestamps {
        last_access: time(accessed),
        last_modification: time(modified),
    };
    to.set_times(&times)
        .with_context("set the times of", || to.path())
}

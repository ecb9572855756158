//! Copying what a file has besides its content.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr, lremovexattr,
        lsetxattr, utimensat,
    },
    io::Errno,
};

use crate::contract::{Context, Error};

/// What overlay keeps its own marks under, as root and in a user namespace.
const OWN_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Marks a directory of an upper layer that stands for the host's one of the same path and that no
/// workload has made. Overlay shows it to nobody.
const PLACEHOLDER: &str = "user.overlay.reaper-made";

/// The name and the value of an extended attribute.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// The extended attributes of `path` itself, without the overlay's own, sorted by name.
pub(crate) fn xattrs(path: &Path) -> Result<Vec<Xattr>, Error> {
    let mut list = vec![0u8; 1024];
    let length = loop {
        match llistxattr(path, list.as_mut_slice()) {
            Ok(length) => break length,
            Err(Errno::RANGE) => list.resize(list.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno).context("list the attributes of", path),
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
        if let Some(value) = xattr(path, OsStr::from_bytes(name))? {
            found.push((name.to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// One extended attribute of `path` itself.
pub(crate) fn xattr(path: &Path, name: &OsStr) -> Result<Option<Vec<u8>>, Error> {
    let mut value = vec![0u8; 256];
    loop {
        match lgetxattr(path, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => value.resize(value.len() * 4, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno).context("read an attribute of", path),
        }
    }
}

/// Whether the overlay marked the directory `path` as one that hides the lower one.
pub(crate) fn is_opaque(path: &Path) -> Result<bool, Error> {
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        if xattr(path, OsStr::new(name))?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Says of the directory `path` that no workload has made it. A filesystem that takes no extended
/// attributes is left without the mark.
pub(crate) fn mark_placeholder_dir(path: &Path) -> Result<(), Error> {
    match lsetxattr(path, PLACEHOLDER, b"y", XattrFlags::empty()) {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno).context("mark", path),
    }
}

/// Whether [`mark_placeholder_dir`] was called for the file `path`, of which `metadata` is.
pub(crate) fn is_placeholder_dir(path: &Path, metadata: &fs::Metadata) -> Result<bool, Error> {
    Ok(metadata.is_dir() && xattr(path, OsStr::new(PLACEHOLDER))?.is_some())
}

/// Whether `metadata` is that of the overlay's mark for a deleted file.
pub(crate) fn is_whiteout(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Gives `to` the owner, mode, extended attributes and times of `from`.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(from).context("stat", from)?;
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))
        .context("change the owner of", to)?;
    if !metadata.file_type().is_symlink() {
        // After the owner: changing that clears the set-id bits.
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
            .context("change the mode of", to)?;
    }
    let wanted = xattrs(from)?;
    for (name, _) in xattrs(to)? {
        if !wanted.iter().any(|(keep, _)| *keep == name) {
            lremovexattr(to, name.as_slice()).context("remove an attribute of", to)?;
        }
    }
    for (name, value) in wanted {
        match lsetxattr(to, name.as_slice(), &value, XattrFlags::empty()) {
            // The other filesystem has no place for it.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno).context("set an attribute of", to),
        }
    }
    set_times(to, &metadata)
}

/// Gives the directory or file `to` the mode and the times of `from`: all that somebody who is not
/// root can give.
pub(crate) fn copy_mode_and_times(from: &Path, to: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(from).context("stat", from)?;
    set_mode_and_times(to, &metadata)
}

/// The same, with what `metadata` says.
pub(crate) fn set_mode_and_times(to: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
        .context("change the mode of", to)?;
    set_times(to, metadata)
}

fn set_times(to: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    let time = |seconds: i64, nanoseconds: i64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as _,
    };
    let times = Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).context("set the times of", to)
}

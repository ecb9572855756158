//! Hiding the host's secrets.
//!
//! A mask is a layer of the overlay, between the host's root and what the workloads write: the
//! secret is not covered by a mount that could be taken away, it is not in the view at all.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat},
    io::Errno,
};

use crate::{
    contract::{Context, Error, user::Privilege},
    linux::{
        file_attributes,
        files::{make_dir, read_regular},
    },
};

/// What the step is called that a filesystem refuses which can hold no layer.
pub(crate) const MAKE_WHITEOUT: &str = "make a whiteout at";

/// One thing that is hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask {
    /// Where, with no symlink in its parents.
    pub(crate) path: PathBuf,
    pub(crate) how: How,
}

impl Mask {
    /// Makes `path` not exist.
    pub(crate) fn absent(path: PathBuf) -> Self {
        let how = How::Absent;
        Self { path, how }
    }
}

/// How something is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It does not exist.
    Absent,
    /// It is a directory without entries.
    Empty,
    /// Its password hashes are gone.
    Sanitised,
}

/// Whose overlays a layer is made for. It decides in which namespace of extended attributes overlay
/// keeps its marks, and what of the host's attributes can be given to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerStyle {
    /// Root's (`trusted.overlay.*`).
    Trusted,
    /// An ordinary user's, in a user namespace (`user.overlay.*`, the mount option `userxattr`).
    User,
}

impl LayerStyle {
    pub(crate) fn of(privilege: Privilege) -> Self {
        match privilege {
            Privilege::Root => Self::Trusted,
            Privilege::User => Self::User,
        }
    }

    /// The attribute that makes a directory opaque.
    fn opaque(self) -> &'static CStr {
        match self {
            Self::Trusted => c"trusted.overlay.opaque",
            Self::User => c"user.overlay.opaque",
        }
    }

    /// Makes the file `to` look like `from`.
    fn copy_metadata(self, from: &Path, to: &Path) -> Result<(), Error> {
        match self {
            Self::Trusted => file_attributes::copy(from, to),
            Self::User => file_attributes::copy_mode_and_times(from, to),
        }
    }
}

/// Writes the layer that hides `masks`, all of them below `root`, into the empty directory
/// `layer`.
pub(crate) fn write_layer<'a>(
    layer: &Path,
    root: &Path,
    masks: impl Iterator<Item = &'a Mask>,
    style: LayerStyle,
) -> Result<(), Error> {
    let mut parents = BTreeSet::from([PathBuf::new()]);
    for mask in masks {
        let Ok(relative) = mask.path.strip_prefix(root) else {
            continue;
        };
        let target = layer.join(relative);
        for parent in relative.ancestors().skip(1) {
            parents.insert(parent.to_owned());
        }
        if let Some(parent) = target.parent() {
            // For root only until it looks like the host's, which may be gone.
            make_dir(parent)?;
        }
        match mask.how {
            How::Absent => make_whiteout(&target)?,
            How::Empty => {
                fs::DirBuilder::new()
                    .mode(0o700)
                    .create(&target)
                    .context("make", &target)?;
                unless_gone(style.copy_metadata(&mask.path, &target))?;
                match lsetxattr(&target, style.opaque(), b"y", XattrFlags::empty()) {
                    // A tmpfs before Linux 6.6 takes no attribute of a user's.
                    Err(Errno::OPNOTSUPP) => {
                        fs::remove_dir(&target).context("remove", &target)?;
                        make_whiteout(&target)?;
                    }
                    other => other.context("mark as opaque", &target)?,
                }
            }
            How::Sanitised => {
                let Some(text) = unless_gone(read_regular(&mask.path).context("read", &mask.path))?
                else {
                    make_whiteout(&target)?;
                    continue;
                };
                fs::write(&target, b"").context("write", &target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o600))
                    .context("change the mode of", &target)?;
                fs::write(&target, sanitise(&text)).context("write", &target)?;
                unless_gone(style.copy_metadata(&mask.path, &target))?;
            }
        }
    }
    // These are merged with the host's and show the attributes of this layer. Children first: to
    // make an entry changes the times of its directory.
    for parent in parents.iter().rev() {
        unless_gone(style.copy_metadata(&root.join(parent), &layer.join(parent)))?;
    }
    Ok(())
}

/// `None` where the host's file was removed since it was looked at: other processes of the host mount,
/// unmount and remove meanwhile. What is gone needs no other look, and stays hidden.
fn unless_gone<T>(done: Result<T, Error>) -> Result<Option<T>, Error> {
    match done {
        Err(error) if error.is_gone() => Ok(None),
        other => other.map(Some),
    }
}

fn make_whiteout(path: &Path) -> Result<(), Error> {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).context(MAKE_WHITEOUT, path)
}

/// Replaces the second field of each line, unless it holds no hash.
fn sanitise(text: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(text.len());
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
        if at > 0 {
            clean.push(b'\n');
        }
        for (at, field) in line.split(|&byte| byte == b':').enumerate() {
            if at > 0 {
                clean.push(b':');
            }
            let locked = field.starts_with(b"!");
            let harmless = matches!(field, b"" | b"*" | b"x" | b"!" | b"!!" | b"!*");
            match at {
                1 if harmless => clean.extend(field),
                1 if locked => clean.push(b'!'),
                1 => clean.push(b'*'),
                _ => clean.extend(field),
            }
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitised_shadow_keeps_accounts_without_hashes() {
        let text = b"root:$6$salt$hash:19000:0:99999:7:::\ndaemon:*:19000::::::\nold:!$6$x:1::::::\nnew:!:1::::::\n";
        let clean = String::from_utf8(sanitise(text)).unwrap();
        assert_eq!(
            clean,
            "root:*:19000:0:99999:7:::\ndaemon:*:19000::::::\nold:!:1::::::\nnew:!:1::::::\n"
        );
    }
}

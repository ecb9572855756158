//! Hiding the host's secrets.
//!
//! A mask is a layer of the overlay, between the host's root and what the workloads write: the
//! secret is not covered by a mount that could be taken away, it is not in the view at all.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};
use reaper_spec::MaskConfig;
use rustix::{
    fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat},
    io::Errno,
};

use crate::{
    contract::{Context, Error, user},
    linux::file_attributes,
};

#[cfg(test)]
mod tests;

/// What is hidden unless the node's configuration replaces the list. Names without a wildcard are
/// hidden also if they come into being after the scope was made.
pub const DEFAULT_MASKS: [&str; 15] = [
    "/root/.ssh",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    "/etc/ssh/ssh_host_*_key",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/kubernetes",
    "/var/lib/kubelet/pki",
    "/run/secrets",
    "/var/lib/docker",
    "/var/lib/rancher/*/server/tls",
];

/// The files whose hashes are taken out, so that account tools still work.
const SANITISED: [&str; 2] = ["/etc/shadow", "/etc/gshadow"];

/// What the step is called that a filesystem refuses which can hold no layer.
pub(crate) const MAKE_WHITEOUT: &str = "make a whiteout at";

/// One thing that is hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask {
    /// Where, with no symlink in its parents.
    pub(crate) path: PathBuf,
    pub(crate) how: How,
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

const EXACT: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Finds on the host what the configuration hides, and `hidden`, which it cannot except.
pub(crate) fn find(config: &MaskConfig, hidden: &[PathBuf]) -> Result<Vec<Mask>, Error> {
    let except = config
        .except
        .iter()
        .map(|text| pattern(text))
        .collect::<Result<Vec<_>, _>>()?;
    let builtin = || {
        DEFAULT_MASKS
            .iter()
            .map(|text| (*text).to_owned())
            .collect()
    };
    let list: Vec<String> = config.replace.clone().unwrap_or_else(builtin);
    let mut masks = Vec::new();
    for path in hidden {
        add(path, &[], &mut masks)?;
    }
    for text in list.iter().chain(&config.add) {
        if pattern(text)?.as_str().contains(['*', '?', '[']) {
            let found = glob::glob_with(text, EXACT).map_err(|source| Error::Pattern {
                pattern: text.clone(),
                source,
            })?;
            for path in found {
                match path.map_err(io::Error::from) {
                    // What users may not list is not shown to their workloads either.
                    Err(error) if is_denied(&error) && user::is_needed() => {}
                    path => add(&path.context("expand the mask", text)?, &except, &mut masks)?,
                }
            }
        } else {
            add(Path::new(text), &except, &mut masks)?;
        }
    }
    masks.sort_by(|a: &Mask, b| a.path.cmp(&b.path));
    masks.dedup_by(|a, b| a.path == b.path);
    // What is below something that is hidden as a whole needs no mask of its own.
    let whole: Vec<PathBuf> = masks.iter().map(|mask| mask.path.clone()).collect();
    masks.retain(|mask| {
        !whole
            .iter()
            .any(|other| *other != mask.path && mask.path.starts_with(other))
    });
    Ok(masks)
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn pattern(text: &str) -> Result<Pattern, Error> {
    Pattern::new(text).map_err(|source| Error::Pattern {
        pattern: text.to_owned(),
        source,
    })
}

fn add(path: &Path, except: &[Pattern], masks: &mut Vec<Mask>) -> Result<(), Error> {
    if except
        .iter()
        .any(|pattern| pattern.matches_path_with(path, EXACT))
    {
        return Ok(());
    }
    // A mask has to lie where the lookup ends, not at a symlink on the way. Without its parent
    // there is nothing to hide, and no place for a mark either.
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let Ok(parent) = parent.canonicalize() else {
        return Ok(());
    };
    let path = parent.join(name);
    let Ok(metadata) = fs::symlink_metadata(&path) else {
        masks.push(Mask {
            path,
            how: How::Absent,
        });
        return Ok(());
    };
    if metadata.is_symlink()
        && let Ok(target) = path.canonicalize()
    {
        masks.push(Mask {
            path,
            how: How::Absent,
        });
        return add(&target, except, masks);
    }
    if metadata.is_dir() {
        let inside = |pattern: &Pattern| reaches_into(pattern, &path);
        let parts = except.iter().any(inside).then(|| fs::read_dir(&path));
        match parts {
            // As above.
            Some(Err(error)) if is_denied(&error) && user::is_needed() => {}
            Some(parts) => {
                for entry in parts.context("list", &path)? {
                    add(&entry.context("list", &path)?.path(), except, masks)?;
                }
            }
            None => masks.push(Mask {
                path,
                how: How::Empty,
            }),
        }
    } else if SANITISED.iter().any(|file| Path::new(file) == path) {
        masks.push(Mask {
            path,
            how: How::Sanitised,
        });
    } else {
        masks.push(Mask {
            path,
            how: How::Absent,
        });
    }
    Ok(())
}

/// Whether `pattern` can match something below `dir`.
fn reaches_into(pattern: &Pattern, dir: &Path) -> bool {
    let mut parts = Path::new(pattern.as_str()).components();
    for component in dir.components() {
        let Some(part) = parts.next() else {
            return false;
        };
        if part.as_os_str() == "**" {
            return true;
        }
        let matches = Pattern::new(&part.as_os_str().to_string_lossy())
            .is_ok_and(|part| part.matches(&component.as_os_str().to_string_lossy()));
        if !matches {
            return false;
        }
    }
    parts.next().is_some()
}

/// How a layer is written.
pub(crate) struct Writer {
    /// The attribute that makes a directory opaque.
    opaque: &'static CStr,
    /// Makes a file look like another one.
    liken: fn(&Path, &Path) -> Result<(), Error>,
}

/// For overlays that root mounts.
pub(crate) const AS_ROOT: Writer = Writer {
    opaque: c"trusted.overlay.opaque",
    liken: file_attributes::copy,
};

/// For overlays that an ordinary user mounts.
pub(crate) const AS_USER: Writer = Writer {
    opaque: c"user.overlay.opaque",
    liken: file_attributes::copy_mode_and_times,
};

/// Writes the layer that hides `masks`, all of them below `root`, into the empty directory
/// `layer`.
pub(crate) fn write_layer<'a>(
    layer: &Path,
    root: &Path,
    masks: impl Iterator<Item = &'a Mask>,
    writer: &Writer,
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
            fs::create_dir_all(parent).context("make", parent)?;
        }
        match mask.how {
            How::Absent => make_whiteout(&target)?,
            How::Empty => {
                fs::DirBuilder::new()
                    .mode(0o700)
                    .create(&target)
                    .context("make", &target)?;
                (writer.liken)(&mask.path, &target)?;
                match lsetxattr(&target, writer.opaque, b"y", XattrFlags::empty()) {
                    // A tmpfs before Linux 6.6 takes no attribute of a user's.
                    Err(Errno::OPNOTSUPP) => {
                        fs::remove_dir(&target).context("remove", &target)?;
                        make_whiteout(&target)?;
                    }
                    other => other.context("mark as opaque", &target)?,
                }
            }
            How::Sanitised => {
                let text = fs::read(&mask.path).context("read", &mask.path)?;
                fs::write(&target, b"").context("write", &target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o600))
                    .context("change the mode of", &target)?;
                fs::write(&target, sanitise(&text)).context("write", &target)?;
                (writer.liken)(&mask.path, &target)?;
            }
        }
    }
    // These are merged with the host's and show the attributes of this layer. Children first: to
    // make an entry changes the times of its directory.
    for parent in parents.iter().rev() {
        (writer.liken)(&root.join(parent), &layer.join(parent))?;
    }
    Ok(())
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

//! Which of the host's files are hidden.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};
use reaper_spec::MaskConfig;

use crate::{
    contract::{Context, Error, user::Privilege},
    linux::mountinfo::{self, MountInfo},
    mount::mask::{How, Mask},
};

mod aliases;
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
                    Err(error)
                        if is_denied(&error) && Privilege::of_process() == Privilege::User => {}
                    path => add(&path.context("expand the mask", text)?, &except, &mut masks)?,
                }
            }
        } else {
            add(Path::new(text), &except, &mut masks)?;
        }
    }
    let mounts = mountinfo::read()?;
    add_aliases(&mountinfo::visible(&mounts), &except, &mut masks);
    warn_of_hard_links(&masks);
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

/// Hides what `masks` hide also where another of `mounts` shows it.
fn add_aliases(mounts: &[&MountInfo], except: &[Pattern], masks: &mut Vec<Mask>) {
    let mut more = Vec::new();
    for mask in masks.iter() {
        for path in aliases::find(mask, mounts) {
            // What is configured by its name comes first: it may be sanitised, and this be absent.
            if is_excepted(&path, except) || masks.iter().any(|known| known.path == path) {
                continue;
            }
            let is_dir = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
            let how = match mask.how {
                How::Empty if !is_dir => How::Absent,
                how => how,
            };
            more.push(Mask { path, how });
        }
    }
    masks.append(&mut more);
}

fn warn_of_hard_links(masks: &[Mask]) {
    for mask in masks {
        let more = aliases::hard_links(mask, masks);
        if more > 0 {
            let path = mask.path.display();
            tracing::warn!(
                "{path} is hidden from workloads, but has {more} hard links that are not: find them \
                 by `find / -samefile {path}`, and remove them or add them to overlay.masks.add"
            );
        }
    }
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

/// Adds what hides `path`, and where it is a symlink what hides its target.
fn add(path: &Path, except: &[Pattern], masks: &mut Vec<Mask>) -> Result<(), Error> {
    if is_excepted(path, except) {
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
        masks.push(Mask::absent(path));
        return Ok(());
    };
    if metadata.is_symlink()
        && let Ok(target) = path.canonicalize()
    {
        masks.push(Mask::absent(path));
        return add(&target, except, masks);
    }
    if metadata.is_dir() {
        return add_directory(path, except, masks);
    }
    let is_sanitised = metadata.is_file() && SANITISED.iter().any(|file| Path::new(file) == path);
    masks.push(if is_sanitised {
        Mask {
            path,
            how: How::Sanitised,
        }
    } else {
        Mask::absent(path)
    });
    Ok(())
}

fn is_excepted(path: &Path, except: &[Pattern]) -> bool {
    except
        .iter()
        .any(|pattern| pattern.matches_path_with(path, EXACT))
}

/// Adds the directory `path` as a whole, or where an exception reaches into it, its entries.
fn add_directory(path: PathBuf, except: &[Pattern], masks: &mut Vec<Mask>) -> Result<(), Error> {
    if !except.iter().any(|pattern| reaches_into(pattern, &path)) {
        masks.push(Mask {
            path,
            how: How::Empty,
        });
        return Ok(());
    }
    let entries = match fs::read_dir(&path) {
        // What users may not list is not shown to their containers either.
        Err(error) if is_denied(&error) && Privilege::of_process() == Privilege::User => {
            return Ok(());
        }
        entries => entries.context("list", &path)?,
    };
    for entry in entries {
        add(&entry.context("list", &path)?.path(), except, masks)?;
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

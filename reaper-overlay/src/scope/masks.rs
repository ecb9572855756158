//! Which of the host's files are hidden.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};
use reaper_spec::MaskConfig;

use crate::{
    contract::{Context, Error, user::Privilege},
    mount::mask::{How, Mask},
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
            Some(Err(error)) if is_denied(&error) && Privilege::of_process() == Privilege::User => {
            }
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

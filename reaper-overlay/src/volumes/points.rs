//! The mount points that volumes need in a scope: made, counted, guarded, removed.
//!
//! Removing or renaming a directory silently takes away what another member has mounted on it.
//! So a mount point in use is guarded: in the scope's own namespace it is bound to itself, which
//! reaches every member and makes the kernel refuse (`EBUSY`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};
use rustix::{
    fs::{AtFlags, CWD, Mode as Permissions, OFlags, StatxAttributes, StatxFlags, open, statx},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount},
};
use serde::{Deserialize, Serialize};

use super::resolve::{Resolved, resolve};
use crate::{
    Error, Scope,
    base::Base,
    error::Context,
    helper::Helper,
    layers::{read_json, write_json},
    live::{is_host_path, open_pin},
    lock::{Lock, Mode},
    mountinfo::{escape, unescape},
    scope::ScopePaths,
};

/// Where a volume is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// The earlier volume that it lies in.
    pub(crate) inside: Option<usize>,
}

/// All mount points of a base that were made or are guarded. The key is the scope, or nothing
/// for the host's own trees, and the escaped path.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Points(BTreeMap<String, Point>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Point {
    path: String,
    /// Whether it was missing, and so is removed with its last user.
    made: Option<Kind>,
    /// The users, by scope.
    users: BTreeMap<String, BTreeSet<String>>,
    /// The scopes in which it is guarded.
    guarded: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Directory,
    File,
}

/// What [`acquire`] answers, as it crosses the pipe.
type Found = Vec<(String, Option<usize>)>;

struct Desk<'a> {
    scope: &'a str,
    id: &'a str,
    host_paths: &'a [PathBuf],
    table: PathBuf,
    points: Points,
}

fn lock(base: &Base) -> Result<Lock, Error> {
    // One for the base: the host's trees are the same in all its scopes.
    Lock::take(&base.path.join("live/mount-points.lock"), Mode::Exclusive)
}

fn table(base: &Base) -> PathBuf {
    base.path.join("live/mount-points.json")
}

/// Finds, and makes where it is missing, a mount point for each of `wanted` in the scope, and
/// counts `id` as its user until [`release`].
pub(super) fn acquire(
    base: &Base,
    scope: &Scope,
    id: &str,
    pin: &File,
    host_paths: &[PathBuf],
    wanted: &[(PathBuf, bool)],
) -> Result<Vec<Place>, Error> {
    let _lock = lock(base)?;
    let table = table(base);
    let points = read_json(&table)?.unwrap_or_default();
    let mut desk = Desk {
        scope: scope.as_str(),
        id,
        host_paths,
        table,
        points,
    };
    let found: Result<Found, Error> = Helper::run("make mount points", || {
        desk.enter(pin)?;
        desk.acquire(wanted)
    });
    match found {
        Ok(found) => Ok(found
            .into_iter()
            .map(|(path, inside)| Place {
                path: unescape(path.as_bytes()).into(),
                inside,
            })
            .collect()),
        Err(error) => {
            // The first error is the one to tell; `collect` tries again.
            let _ = release_locked(base, scope, id);
            Err(error)
        }
    }
}

/// Gives back the mount points of `id`, and removes those that nobody else uses. Idempotent.
pub(crate) fn release(base: &Base, scope: &Scope, id: &str) -> Result<(), Error> {
    if !table(base).try_exists().context("look for", table(base))? {
        return Ok(());
    }
    let _lock = lock(base)?;
    release_locked(base, scope, id)
}

/// Gives back the mount points of all users in `scope`, which nobody is in any more.
pub(crate) fn release_all(base: &Base, scope: &Scope) -> Result<(), Error> {
    let _lock = lock(base)?;
    let points: Points = read_json(&table(base))?.unwrap_or_default();
    let users = points
        .0
        .values()
        .filter_map(|point| point.users.get(scope.as_str()));
    let ids: BTreeSet<String> = users.flatten().cloned().collect();
    ids.iter()
        .try_for_each(|id| release_locked(base, scope, id))
}

fn release_locked(base: &Base, scope: &Scope, id: &str) -> Result<(), Error> {
    let table = table(base);
    let points: Points = read_json(&table)?.unwrap_or_default();
    let mine = |point: &Point| {
        point
            .users
            .get(scope.as_str())
            .is_some_and(|ids| ids.contains(id))
    };
    if !points.0.values().any(mine) {
        return Ok(());
    }
    let pin = open_pin(&ScopePaths::new(&base.path, scope))?;
    let mut desk = Desk {
        scope: scope.as_str(),
        id,
        host_paths: &[],
        table,
        points,
    };
    Helper::run("remove mount points", || {
        match &pin {
            Some(pin) => desk.enter(pin)?,
            // The scope is gone, and with it all but what was made on the host's trees.
            None => desk.points.0.retain(|key, _| key.starts_with(' ')),
        }
        desk.release()
    })
}

impl Desk<'_> {
    /// Moves the calling process into the scope. The table stays reachable.
    fn enter(&mut self, pin: &File) -> Result<(), Error> {
        let folder = self.table.parent().unwrap_or(Path::new("/"));
        let folder: OwnedFd = open(folder, OFlags::PATH | OFlags::CLOEXEC, Permissions::empty())
            .context("open", folder)?;
        setns(pin, CloneFlags::CLONE_NEWNS).context("enter the scope", self.scope)?;
        let name = self.table.file_name().unwrap_or_default().to_owned();
        self.table = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        // Until the process ends.
        std::mem::forget(folder);
        Ok(())
    }

    fn save(&self) -> Result<(), Error> {
        write_json(&self.table, &self.points)
    }

    fn acquire(&mut self, wanted: &[(PathBuf, bool)]) -> Result<Found, Error> {
        let mut places: Vec<PathBuf> = Vec::new();
        let mut found = Found::new();
        for (destination, directory) in wanted {
            let Resolved {
                path,
                inside,
                missing,
            } = resolve(destination, &places)?;
            // The same path twice: the later volume lies on the earlier one.
            let again = inside.is_some_and(|at| places[at] == path);
            if inside.is_none() {
                self.check_kind(&path, *directory, &missing)?;
                self.claim(&path, *directory, &missing)?;
            }
            found.push((escape(path.as_os_str()), inside.filter(|_| !again)));
            places.push(path);
        }
        Ok(found)
    }

    fn check_kind(&self, path: &Path, directory: bool, missing: &[PathBuf]) -> Result<(), Error> {
        if !missing.is_empty() {
            return Ok(());
        }
        let metadata = fs::symlink_metadata(path).context("stat", path)?;
        if metadata.is_dir() == directory {
            Ok(())
        } else {
            Err(Error::MountKind {
                destination: path.to_owned(),
                directory,
            })
        }
    }

    fn claim(&mut self, path: &Path, directory: bool, missing: &[PathBuf]) -> Result<(), Error> {
        let is_last = |part: &Path| part == path;
        for part in missing {
            let kind = if is_last(part) && !directory {
                Kind::File
            } else {
                Kind::Directory
            };
            self.entry(part).made = Some(kind);
        }
        // Parents that were made for somebody else are needed by this one as well.
        for part in path.ancestors() {
            let key = self.key(part);
            if self.points.0.contains_key(&key) || is_last(part) {
                self.use_it(part);
            }
        }
        // Known before it is done, so that a killed process leaves nothing unknown.
        self.save()?;
        for part in missing {
            make(part, !is_last(part) || directory)?;
        }
        let scope = self.scope.to_owned();
        if !is_mount_point(path)? {
            bind_to_itself(path)?;
            self.entry(path).guarded.insert(scope);
            self.save()?;
        }
        Ok(())
    }

    fn key(&self, path: &Path) -> String {
        let domain = if is_host_path(path, self.host_paths) {
            ""
        } else {
            self.scope
        };
        format!("{domain} {}", escape(path.as_os_str()))
    }

    fn entry(&mut self, path: &Path) -> &mut Point {
        let key = self.key(path);
        let point = self.points.0.entry(key).or_default();
        point.path = escape(path.as_os_str());
        point
    }

    fn use_it(&mut self, path: &Path) {
        let (scope, id) = (self.scope.to_owned(), self.id.to_owned());
        self.entry(path).users.entry(scope).or_default().insert(id);
    }

    fn release(&mut self) -> Result<(), Error> {
        let mut keys: Vec<String> = self.points.0.keys().cloned().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.matches('/').count()));
        for key in keys {
            let Some(point) = self.points.0.get_mut(&key) else {
                continue;
            };
            let Some(ids) = point.users.get_mut(self.scope) else {
                continue;
            };
            if !ids.remove(self.id) || !ids.is_empty() {
                continue;
            }
            point.users.remove(self.scope);
            let path = PathBuf::from(unescape(point.path.as_bytes()));
            if point.guarded.remove(self.scope) {
                unguard(&path)?;
            }
            if point.users.is_empty() {
                if let Some(kind) = point.made {
                    remove(&path, kind)?;
                }
                self.points.0.remove(&key);
            }
        }
        self.save()
    }
}

fn make(path: &Path, directory: bool) -> Result<(), Error> {
    let made = if directory {
        fs::create_dir(path)
    } else {
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map(drop)
    };
    match made {
        // A workload was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context("make the mount point", path),
    }
}

/// Removes what was made, unless a workload keeps something in it.
fn remove(path: &Path, kind: Kind) -> Result<(), Error> {
    let removed = match kind {
        Kind::Directory => fs::remove_dir(path),
        Kind::File => match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.len() == 0 => fs::remove_file(path),
            _ => Ok(()),
        },
    };
    match removed {
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR | Errno::BUSY) => Ok(()),
            _ => Err(error).context("remove the mount point", path),
        },
        Ok(()) => Ok(()),
    }
}

fn is_mount_point(path: &Path) -> Result<bool, Error> {
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
        .context("stat the mount point", path)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn bind_to_itself(path: &Path) -> Result<(), Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags).context("guard", path)?;
    move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).context("guard", path)
}

fn unguard(path: &Path) -> Result<(), Error> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(errno).context("take the guard off", path),
    }
}

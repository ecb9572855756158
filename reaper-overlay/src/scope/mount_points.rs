//! The mount points that volumes need in a scope: made, counted, guarded, removed.
//!
//! Removing or renaming a directory silently takes away what another member has mounted on it.
//! So a mount point in use is guarded: in the scope's own namespace it is bound to itself, which
//! reaches every member and makes the kernel refuse (`EBUSY`).

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode as Permissions, OFlags, open};

use super::keep::{self, Enter};
use crate::{
    contract::{Context, Error, Scope, host_paths::is_host_path},
    linux::{
        files::exists,
        helper::Helper,
        mount_point::{Kind, bind_to_itself, is_mount_point, make, remove, unguard},
        mountinfo::{escape, unescape},
        resolve::{Resolved, resolve},
    },
    store::{
        base::Base,
        mount_points::{Books, INSIDE, Point, file, lock},
        paths::ScopePaths,
    },
};

/// Whose mount points they are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner<'a> {
    /// A member of a scope.
    Scope(&'a Scope),
    /// A container without an overlay.
    Host,
}

impl Owner<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Scope(scope) => scope.as_str(),
            Self::Host => "host",
        }
    }
}

/// Where a volume is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// The earlier volume that it lies in.
    pub(crate) inside: Option<usize>,
}

/// What [`acquire`] answers, as it crosses the pipe.
type Found = Vec<(String, Option<usize>)>;

struct Desk<'a> {
    owner: Owner<'a>,
    id: &'a str,
    host_paths: &'a [PathBuf],
    file: PathBuf,
    books: Books,
    /// Whether this process has entered the scope. Nowhere else mount points are guarded: all of
    /// the host would see that.
    entered: bool,
}

/// Finds, and makes where it is missing, a mount point for each of `wanted`, in the scope that
/// `enter` enters or on the host itself, and counts `id` as its user until [`release`].
pub(crate) fn acquire(
    base: &Base,
    owner: Owner<'_>,
    id: &str,
    enter: Option<Enter<'_>>,
    host_paths: &[PathBuf],
    wanted: &[(PathBuf, bool)],
) -> Result<Vec<Place>, Error> {
    let _lock = lock(base)?;
    let mut desk = Desk::open(base, owner, id, host_paths)?;
    let found: Result<Found, Error> = Helper::run("make mount points", || {
        if let Some(enter) = enter {
            desk.enter(enter)?;
        }
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
            let _ = release_locked(base, owner, id, enter);
            Err(error)
        }
    }
}

/// Counts `id` as a user of the mount point at `path` inside a volume until [`release`]. With
/// `missing` it is about to be made. `path` is the host's.
pub(crate) fn use_inside(
    base: &Base,
    owner: Owner<'_>,
    id: &str,
    path: &Path,
    missing: Option<Kind>,
) -> Result<(), Error> {
    let _lock = lock(base)?;
    let mut desk = Desk::open(base, owner, id, &[])?;
    let key = format!("{INSIDE}{}", escape(path.as_os_str()));
    if missing.is_none() && !desk.books.points.contains_key(&key) {
        return Ok(());
    }
    let point = desk.books.entry(key, path);
    point.made = point.made.or(missing);
    let users = point.users.entry(owner.name().to_owned()).or_default();
    users.insert(id.to_owned());
    desk.books.save_durably(&desk.file)
}

/// Gives back the mount points of `id`, and removes those that nobody else uses. Idempotent.
pub(crate) fn release(base: &Base, owner: Owner<'_>, id: &str) -> Result<(), Error> {
    if !are_kept(base)? {
        return Ok(());
    }
    let _lock = lock(base)?;
    let entrance = match owner {
        Owner::Scope(scope) => keep::find(&ScopePaths::new(&base.path, scope))?,
        Owner::Host => None,
    };
    release_locked(base, owner, id, entrance.as_deref())
}

/// Gives back the mount points that earlier members of `scope` have left, in which nobody is and on
/// which nothing is mounted. `enter` enters it, if it is mounted.
pub(crate) fn release_all(
    base: &Base,
    scope: &Scope,
    enter: Option<Enter<'_>>,
) -> Result<(), Error> {
    if !are_kept(base)? {
        return Ok(());
    }
    let _lock = lock(base)?;
    let mut books = Books::open(&file(&base.path))?;
    let mut ids = BTreeSet::new();
    for point in books.points.values_mut() {
        point.guarded.remove(scope.as_str());
        ids.extend(
            point
                .users
                .get(scope.as_str())
                .into_iter()
                .flatten()
                .cloned(),
        );
    }
    books.save(&file(&base.path))?;
    ids.iter()
        .try_for_each(|id| release_locked(base, Owner::Scope(scope), id, enter))
}

/// Whether the base at `base` has ever had mount points to count.
pub(crate) fn are_known(base: &Path) -> Result<bool, Error> {
    exists(&file(base))
}

/// Whether mount points are known of. Before the base is ready nobody has any: what the last run
/// of the machine has left is seen to by whoever needs it next.
fn are_kept(base: &Base) -> Result<bool, Error> {
    Ok(base.is_ready()? && exists(&file(&base.path))?)
}

fn release_locked(
    base: &Base,
    owner: Owner<'_>,
    id: &str,
    enter: Option<Enter<'_>>,
) -> Result<(), Error> {
    let mut desk = Desk::open(base, owner, id, &[])?;
    if desk.mine(|_| true).is_empty() {
        return Ok(());
    }
    // What lies in volumes is the host's to find.
    desk.release(|key| key.starts_with(INSIDE))?;
    let own = format!("{} ", owner.name());
    let is_kept = match (owner, enter) {
        // The next one that mounts the scope removes what is in its layers.
        (Owner::Scope(scope), None) => exists(&ScopePaths::new(&base.path, scope).data)?,
        _ => false,
    };
    Helper::run("remove mount points", || {
        match enter {
            Some(enter) => desk.enter(enter)?,
            None if is_kept => {}
            // The scope is gone, and with it all but what was made on the host's trees.
            None => desk.books.points.retain(|key, _| !key.starts_with(&own)),
        }
        desk.release(|key| !(is_kept && key.starts_with(&own)))
    })
}

impl<'a> Desk<'a> {
    fn open(
        base: &Base,
        owner: Owner<'a>,
        id: &'a str,
        host_paths: &'a [PathBuf],
    ) -> Result<Self, Error> {
        let file = file(&base.path);
        let books = Books::open(&file)?;
        Ok(Self {
            owner,
            id,
            host_paths,
            file,
            books,
            entered: false,
        })
    }

    /// Moves the calling process into the scope. The books stay reachable.
    fn enter(&mut self, enter: Enter<'_>) -> Result<(), Error> {
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        let folder: OwnedFd = open(folder, OFlags::PATH | OFlags::CLOEXEC, Permissions::empty())
            .context("open", folder)?;
        enter()?;
        self.entered = true;
        let name = self.file.file_name().unwrap_or_default().to_owned();
        self.file = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        // Until the process ends.
        std::mem::forget(folder);
        Ok(())
    }

    fn save(&self) -> Result<(), Error> {
        self.books.save(&self.file)
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
            if self.books.points.contains_key(&key) || is_last(part) {
                self.use_it(part);
            }
        }
        // Known before it is done, so that neither a killed process nor a power cut leaves
        // anything unknown.
        if missing.is_empty() {
            self.save()?;
        } else {
            self.books.save_durably(&self.file)?;
        }
        for part in missing {
            make(part, !is_last(part) || directory)?;
        }
        if self.entered && !is_mount_point(path)? {
            bind_to_itself(path)?;
            let scope = self.owner.name().to_owned();
            self.entry(path).guarded.insert(scope);
            self.save()?;
        }
        Ok(())
    }

    fn key(&self, path: &Path) -> String {
        let domain = match self.owner {
            Owner::Scope(scope) if !is_host_path(path, self.host_paths) => scope.as_str(),
            _ => "",
        };
        format!("{domain} {}", escape(path.as_os_str()))
    }

    fn entry(&mut self, path: &Path) -> &mut Point {
        let key = self.key(path);
        self.books.entry(key, path)
    }

    fn use_it(&mut self, path: &Path) {
        let (scope, id) = (self.owner.name().to_owned(), self.id.to_owned());
        self.entry(path).users.entry(scope).or_default().insert(id);
    }

    /// The keys of what `id` uses, what lies deeper first.
    fn mine(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let owner = self.owner.name();
        let is_mine = |point: &Point| {
            let users = point.users.get(owner);
            users.is_some_and(|ids| ids.contains(self.id))
        };
        self.books.keys(|key, point| wanted(key) && is_mine(point))
    }

    fn release(&mut self, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        let owner = self.owner.name();
        for key in self.mine(wanted) {
            let Some(point) = self.books.points.get_mut(&key) else {
                continue;
            };
            let ids = point.users.entry(owner.to_owned()).or_default();
            ids.remove(self.id);
            if !ids.is_empty() {
                continue;
            }
            point.users.remove(owner);
            let path = point.path();
            if point.guarded.remove(owner) && self.entered {
                unguard(&path)?;
            }
            if point.users.is_empty() {
                if let Some(kind) = point.made {
                    remove(&path, kind)?;
                }
                self.books.points.remove(&key);
            }
        }
        self.save()
    }
}

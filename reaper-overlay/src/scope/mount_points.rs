//! The mount points that volumes need in a scope: made, counted, guarded, removed.
//!
//! Removing or renaming a directory silently takes away what another member has mounted on it.
//! So a mount point in use is guarded: in the scope's own namespace it is bound to itself, which
//! reaches every member and makes the kernel refuse (`EBUSY`).

use std::{
    collections::{BTreeSet, HashSet},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode as Permissions, OFlags, open};

use super::keep::ScopeNamespace;
use crate::{
    contract::{Context, Error, Scope, host_paths::is_host_path},
    linux::{
        files::exists,
        handle::{Handle, fd_link},
        helper::Helper,
        in_use::{self, InUse},
        mount_point::{
            Kind, Part, Removal, bind_link_to_itself, bind_to_itself, find, is_mount_point,
            kind_is_right, make, remove, unguard,
        },
        mountinfo::{escape, unescape},
        resolve::{Resolved, Volumes, resolve, without_links},
    },
    store::{
        base::Base,
        mount_points::{INSIDE, MountPoint, MountPointRegistry, is_shared, lock, record},
        paths::ScopePaths,
        record::Record,
    },
};

/// A container that needs mount points, in a scope or without an overlay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MountPointUser<'a> {
    base: &'a Base,
    /// Missing for a container without an overlay: its mount points are the host's.
    scope: Option<&'a Scope>,
    id: &'a str,
}

/// A volume that needs a mount point.
#[derive(Debug)]
pub(crate) struct Requested<'a> {
    pub(crate) destination: &'a Path,
    pub(crate) directory: bool,
    /// It is mounted on its destination itself, where that is a symlink into the host's trees.
    pub(crate) stays_on_link: bool,
    /// Its content, if it has any before it is mounted.
    pub(crate) root: Option<BorrowedFd<'a>>,
}

/// Where a volume is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountTarget {
    pub(crate) path: PathBuf,
    /// The earlier volume that it lies in.
    pub(crate) inside: Option<usize>,
}

/// What [`MountPointUser::acquire`] finds, as it crosses the pipe: the path, the earlier volume that it
/// lies in, and whether it is the host's, where others may remove it.
type Found = Vec<(String, Option<usize>, bool)>;

/// How often mount points are made anew that another base's container has removed meanwhile.
const ATTEMPTS: usize = 20;

impl<'a> MountPointUser<'a> {
    /// The member `id` of `scope`.
    pub(crate) fn in_scope(base: &'a Base, scope: &'a Scope, id: &'a str) -> Self {
        let scope = Some(scope);
        Self { base, scope, id }
    }

    /// The container `id`, which has no overlay.
    pub(crate) fn on_host(base: &'a Base, id: &'a str) -> Self {
        let scope = None;
        Self { base, scope, id }
    }

    fn name(&self) -> &'a str {
        self.scope.map_or("host", Scope::as_str)
    }

    /// Finds, and makes where it is missing, a mount point for each of `requested`, and counts the container
    /// as its user until it is released. Those of the host are held, until what is returned is dropped.
    /// `namespace` is the scope's.
    pub(crate) fn acquire(
        self,
        namespace: Option<&ScopeNamespace>,
        host_paths: &[PathBuf],
        requested: &[Requested<'_>],
    ) -> Result<(Vec<MountTarget>, Vec<InUse>), Error> {
        let _lock = lock(self.base)?;
        let acquire = || self.acquire_locked(namespace, host_paths, requested);
        let mut acquired = acquire();
        for _ in 1..ATTEMPTS {
            if !acquired.as_ref().is_err_and(Error::is_gone) {
                break;
            }
            acquired = acquire();
        }
        if acquired.is_err() {
            // The first error is returned; `collect` tries again to remove what is left.
            let _ = self.release_locked(namespace);
        }
        acquired
    }

    fn acquire_locked(
        self,
        namespace: Option<&ScopeNamespace>,
        host_paths: &[PathBuf],
        requested: &[Requested<'_>],
    ) -> Result<(Vec<MountTarget>, Vec<InUse>), Error> {
        let mut session = MountPointSession::open(self, host_paths)?;
        let found: Result<Found, Error> = Helper::run("make mount points", || {
            if let Some(namespace) = namespace {
                session.enter(namespace)?;
            }
            session.acquire(requested)
        });
        let (mut targets, mut held) = (Vec::new(), Vec::new());
        for (path, inside, is_hosts) in found? {
            let path = PathBuf::from(unescape(path.as_bytes()));
            if is_hosts {
                held.push(InUse::on_host(&self.base.root(), &path)?);
            }
            targets.push(MountTarget { path, inside });
        }
        Ok((targets, held))
    }

    /// Counts the container as a user of `parts`, until it is released. All are recorded in one write, before the
    /// first of them is made; what is recorded already costs none. What is on the way and was not made stays with
    /// what is mounted below it.
    pub(crate) fn acquire_nested(self, parts: &[Part]) -> Result<(), Error> {
        if parts.is_empty() {
            return Ok(());
        }
        let _lock = lock(self.base)?;
        let mut session = MountPointSession::open(self, &[])?;
        let (mut is_changed, mut is_made) = (false, false);
        for part in parts {
            let key = format!("{INSIDE}{}", escape(part.path.as_os_str()));
            let is_known = session.registry.points.contains_key(&key);
            if part.missing.is_none() && !part.is_mount_point && !is_known {
                continue;
            }
            let point = session.registry.entry(key, &part.path);
            if point.made.is_none() && part.missing.is_some() {
                point.made = part.missing;
                is_made = true;
            }
            let users = point.users.entry(self.name().to_owned()).or_default();
            is_changed |= users.insert(self.id.to_owned());
        }
        match (is_made, is_changed) {
            (true, _) => session.record.write_durably(&session.registry),
            (false, true) => session.save(),
            (false, false) => Ok(()),
        }
    }

    /// Releases the container's mount points, and removes those without other users. Idempotent. Where the records are
    /// something else by now the mount points stay, and the container ends nevertheless.
    pub(crate) fn release(self) -> Result<(), Error> {
        self.try_release()
            .or_else(|error| unless_unreadable(error, "its mount points stay"))
    }

    fn try_release(self) -> Result<(), Error> {
        if !are_kept(self.base)? {
            return Ok(());
        }
        let _lock = lock(self.base)?;
        // Looked for under the lock: a scope that ends meanwhile would be missed otherwise.
        let found = match self.scope {
            Some(scope) => {
                let paths = ScopePaths::new(self.base, scope);
                ScopeNamespace::find(self.base.privilege, &paths).or_else(|error| {
                    unless_unreadable(error, "mount points in its layers stay").map(|()| None)
                })?
            }
            None => None,
        };
        let namespace = found.map(|(namespace, _)| namespace);
        self.release_locked(namespace.as_ref())
    }

    fn release_locked(self, namespace: Option<&ScopeNamespace>) -> Result<(), Error> {
        let mut session = MountPointSession::open(self, &[])?;
        if session.keys_in_use(|_| true).is_empty() {
            return Ok(());
        }
        // Mount points in volumes lie on the host.
        session.release(|key| key.starts_with(INSIDE))?;
        let own = format!("{} ", self.name());
        let is_kept = match (self.scope, namespace) {
            // The next member that mounts the scope removes what is in its layers.
            (Some(scope), None) => exists(&ScopePaths::new(self.base, scope).data)?,
            _ => false,
        };
        Helper::run("remove mount points", || {
            match namespace {
                Some(namespace) => session.enter(namespace)?,
                None if is_kept => {}
                // The scope was removed, and with it all but what was made on the host's trees.
                None => session
                    .registry
                    .points
                    .retain(|key, _| !key.starts_with(&own)),
            }
            session.release(|key| !(is_kept && key.starts_with(&own)))
        })
    }
}

/// Warns of a record that cannot be read, by which nothing can be released. Other errors are returned.
fn unless_unreadable(error: Error, left: &str) -> Result<(), Error> {
    if !error.is_unreadable() {
        return Err(error);
    }
    tracing::warn!("{error}: {left}");
    Ok(())
}

/// Releases the mount points that earlier members of `scope` have left, all of which have ended, for its removal.
pub(crate) fn release_removed(base: &Base, scope: &Scope) -> Result<(), Error> {
    release_all(base, scope, None)
        .or_else(|error| unless_unreadable(error, "the scope's mount points on the host stay"))
}

/// Releases the mount points that earlier members of `scope` have left, all of which have ended.
/// `namespace` is the scope's, if it is mounted.
pub(crate) fn release_all(
    base: &Base,
    scope: &Scope,
    namespace: Option<&ScopeNamespace>,
) -> Result<(), Error> {
    if !are_kept(base)? {
        return Ok(());
    }
    let _lock = lock(base)?;
    let record = record(&base.path, base.persistent);
    let mut registry = MountPointRegistry::open(&record)?;
    let mut ids = BTreeSet::new();
    for point in registry.points.values_mut() {
        point.guarded.remove(scope.as_str());
        let users = point.users.get(scope.as_str()).into_iter();
        ids.extend(users.flatten().cloned());
    }
    record.write(&registry)?;
    ids.iter()
        .try_for_each(|id| MountPointUser::in_scope(base, scope, id).release_locked(namespace))
}

/// Whether mount points were ever recorded below `base`.
pub(crate) fn are_known(base: &Path) -> Result<bool, Error> {
    // Of whatever kind the base is: beside the layers there is the record, or a link to it.
    exists(&base.join("mount-points.json"))
}

/// Whether mount points may be in use. Before the base is ready none are: what is left of before
/// the last boot is removed when the registry is opened next.
fn are_kept(base: &Base) -> Result<bool, Error> {
    Ok(base.is_ready()? && record(&base.path, base.persistent).exists()?)
}

/// The symlink at `path`, if one is there and in no volume.
fn link_at(path: &Path, volumes: &Volumes<'_>) -> Result<Option<PathBuf>, Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let parent = resolve(parent, volumes)?;
    let link = parent.path.join(name);
    let found = without_links(&link)?;
    let is_link = found.is_some_and(|found| found.metadata().is_symlink());
    Ok((parent.inside.is_none() && is_link).then_some(link))
}

/// What is to be made once it is recorded.
#[derive(Default)]
struct Plan {
    /// What is missing, the outermost first.
    missing: Vec<(PathBuf, Kind)>,
    /// The same, to be found quickly.
    known: HashSet<PathBuf>,
    /// The mount points, and whether they are directories.
    points: Vec<(PathBuf, bool)>,
    /// Symlinks on which itself something is mounted.
    links: Vec<PathBuf>,
}

/// The registry, opened under its lock for one container.
struct MountPointSession<'a> {
    user: MountPointUser<'a>,
    host_paths: &'a [PathBuf],
    record: Record,
    registry: MountPointRegistry,
    /// The host's root, once this process has entered the scope. Mount points are guarded there only:
    /// on the host the guard would be visible to all.
    host: Option<OwnedFd>,
}

impl<'a> MountPointSession<'a> {
    fn open(user: MountPointUser<'a>, host_paths: &'a [PathBuf]) -> Result<Self, Error> {
        let record = record(&user.base.path, user.base.persistent);
        let registry = MountPointRegistry::open(&record)?;
        Ok(Self {
            user,
            host_paths,
            record,
            registry,
            host: None,
        })
    }

    /// Moves the calling process into the scope. The registry stays reachable.
    fn enter(&mut self, namespace: &ScopeNamespace) -> Result<(), Error> {
        let base = self.user.base;
        let folder = base.path.as_path();
        let folder: OwnedFd = open(folder, OFlags::PATH | OFlags::CLOEXEC, Permissions::empty())
            .context("open", folder)?;
        let root: OwnedFd =
            open("/", OFlags::PATH | OFlags::CLOEXEC, Permissions::empty()).context("open", "/")?;
        namespace.enter()?;
        self.host = Some(root);
        let folder_path = fd_link(&folder);
        self.record = record(&folder_path, base.persistent);
        // The descriptor is open until the process ends.
        std::mem::forget(folder);
        Ok(())
    }

    fn save(&self) -> Result<(), Error> {
        self.record.write(&self.registry)
    }

    /// Finds and makes what is requested. All is recorded in one write before the first is made, so that
    /// neither a killed process nor a power cut leaves a mount point that is not recorded.
    fn acquire(&mut self, requested: &[Requested<'_>]) -> Result<Found, Error> {
        let mut targets = Volumes::default();
        let mut found = Found::new();
        let mut plan = Plan::default();
        for volume in requested {
            let Resolved {
                path,
                inside,
                missing,
            } = resolve(volume.destination, &targets)?;
            if volume.stays_on_link
                && is_host_path(&path, self.host_paths)
                && let Some(link) = link_at(volume.destination, &targets)?
            {
                self.acquire_link(&link, &mut plan)?;
                found.push((escape(link.as_os_str()), None, false));
                targets.push(link, None);
                continue;
            }
            // The same path twice: the later volume lies on the earlier one.
            let again = inside.is_some_and(|at| targets.get(at) == path);
            if inside.is_none() {
                self.acquire_one(&path, volume.directory, missing, &mut plan)?;
            }
            let is_hosts = inside.is_none() && is_shared(&self.key(&path));
            found.push((
                escape(path.as_os_str()),
                inside.filter(|_| !again),
                is_hosts,
            ));
            targets.push(path, volume.root);
        }
        if plan.missing.is_empty() {
            self.save()?;
        } else {
            self.record.write_durably(&self.registry)?;
        }
        for (path, kind) in &plan.missing {
            make(path, *kind, is_shared(&self.key(path)))?;
        }
        for (path, directory) in &plan.points {
            let found = find(path)?;
            kind_is_right(path, *directory, found.is_dir())?;
            if self.is_guarded(path) && !is_mount_point(found.as_fd())? {
                bind_to_itself(found.as_fd()).context("guard", path)?;
            }
        }
        for link in &plan.links {
            let found = find(link)?;
            if self.is_guarded(link) && !is_mount_point(found.as_fd())? {
                // It is mounted without a guard where the kernel refuses this one.
                bind_link_to_itself(found.as_fd())
                    .context("guard", link)
                    .unwrap_or_else(|error| tracing::warn!("{error}"));
            }
        }
        Ok(found)
    }

    /// Counts the container as a user of the symlink at `link`, on which itself something is mounted.
    fn acquire_link(&mut self, link: &Path, plan: &mut Plan) -> Result<(), Error> {
        self.add_user(link);
        if self.host.is_some() && !is_mount_point(find(link)?.as_fd())? {
            let scope = self.user.name().to_owned();
            self.entry(link).guarded.insert(scope);
        }
        plan.links.push(link.to_owned());
        Ok(())
    }

    fn acquire_one(
        &mut self,
        path: &Path,
        directory: bool,
        missing: Vec<PathBuf>,
        plan: &mut Plan,
    ) -> Result<(), Error> {
        let is_last = |part: &Path| part == path;
        for part in missing {
            // Another of the volumes may need it, too.
            if !plan.known.insert(part.clone()) {
                continue;
            }
            let kind = if is_last(&part) && !directory {
                Kind::File
            } else {
                Kind::Directory
            };
            self.entry(&part).made = Some(kind);
            plan.missing.push((part, kind));
        }
        // Parents that were made for another container are needed by this one as well.
        for part in path.ancestors() {
            let key = self.key(part);
            if self.registry.points.contains_key(&key) || is_last(part) {
                self.add_user(part);
            }
        }
        // What is a mount point already needs no guard.
        let is_mounted = || match without_links(path)? {
            Some(found) => is_mount_point(found.as_fd()),
            None => Ok(false),
        };
        if self.host.is_some() && !is_mounted()? {
            let scope = self.user.name().to_owned();
            self.entry(path).guarded.insert(scope);
        }
        plan.points.push((path.to_owned(), directory));
        Ok(())
    }

    fn is_guarded(&self, path: &Path) -> bool {
        let point = self.registry.points.get(&self.key(path));
        point.is_some_and(|point| point.guarded.contains(self.user.name()))
    }

    fn key(&self, path: &Path) -> String {
        let domain = match self.user.scope {
            Some(scope) if !self.is_hosts(path) => scope.as_str(),
            _ => "",
        };
        format!("{domain} {}", escape(path.as_os_str()))
    }

    /// Whether what is made at `path` is made on the host: in one of its trees, unless that is covered
    /// there in the scope.
    fn is_hosts(&self, path: &Path) -> bool {
        let Some(host) = self
            .host
            .as_ref()
            .filter(|_| is_host_path(path, self.host_paths))
        else {
            return is_host_path(path, self.host_paths);
        };
        let mut below = path
            .ancestors()
            .map(|dir| dir.strip_prefix("/").unwrap_or(dir));
        let here =
            below.find_map(|dir| Some((dir, without_links(&Path::new("/").join(dir)).ok()??)));
        let Some((dir, here)) = here else {
            return true;
        };
        let there = Handle::below(host.as_fd(), dir);
        there.is_ok_and(|there| there.is_some_and(|there| there.id() == here.id()))
    }

    fn entry(&mut self, path: &Path) -> &mut MountPoint {
        let key = self.key(path);
        self.registry.entry(key, path)
    }

    fn add_user(&mut self, path: &Path) {
        let (scope, id) = (self.user.name().to_owned(), self.user.id.to_owned());
        self.entry(path).users.entry(scope).or_default().insert(id);
    }

    /// The keys of the mount points in use by the container, deeper ones first.
    fn keys_in_use(&self, chosen: impl Fn(&str) -> bool) -> Vec<String> {
        let owner = self.user.name();
        let is_mine = |point: &MountPoint| {
            let users = point.users.get(owner);
            users.is_some_and(|ids| ids.contains(self.user.id))
        };
        self.registry
            .keys(|key, point| chosen(key) && is_mine(point))
    }

    fn release(&mut self, chosen: impl Fn(&str) -> bool) -> Result<(), Error> {
        let owner = self.user.name();
        for key in self.keys_in_use(chosen) {
            let Some(point) = self.registry.points.get_mut(&key) else {
                continue;
            };
            let ids = point.users.entry(owner.to_owned()).or_default();
            ids.remove(self.user.id);
            if !ids.is_empty() {
                continue;
            }
            point.users.remove(owner);
            let path = point.path();
            if point.guarded.remove(owner) && self.host.is_some() {
                unguard(&path)?;
            }
            if point.users.is_empty() {
                let made = point.made;
                if self.remove(&key, &path, made)? {
                    self.registry.points.remove(&key);
                }
            }
        }
        self.save_released();
        Ok(())
    }

    /// Removes a mount point without users if it was `made`, by this base or another one. Returns false if it is to
    /// be tried again, as a container of another base uses it, which does not know that it was made.
    fn remove(&self, key: &str, path: &Path, made: Option<Kind>) -> Result<bool, Error> {
        if !is_shared(key) {
            return match made {
                Some(kind) => remove(path, kind).map(|_| true),
                None => Ok(true),
            };
        }
        let Some(kind) = made.or_else(|| in_use::marked(path)) else {
            return Ok(true);
        };
        if remove(path, kind)? == Removal::InUse {
            return Ok(in_use::marked(path).is_some());
        }
        // What another base has made around it went with its own users, unless this one was in it.
        let domain = key.split(' ').next().unwrap_or_default();
        for parent in path.ancestors().skip(1) {
            let key = format!("{domain} {}", escape(parent.as_os_str()));
            let is_own = self.registry.points.contains_key(&key);
            if is_own || in_use::marked(parent) != Some(Kind::Directory) {
                break;
            }
            remove(parent, Kind::Directory)?;
        }
        Ok(true)
    }

    fn save_released(&self) {
        if let Err(error) = self.save() {
            // They are released. The record has them until they are released again: with the last
            // member of the scope, or after a reboot.
            tracing::warn!("{error}: released mount points are still recorded");
        }
    }
}

//! Joining a scope, and making it first if it is not mounted.
//!
//! As root a scope that has members is joined with `members` shared, and without `changing`, which
//! would serialise all containers of a host: its pin cannot end while `members` is held. In any other
//! case `changing` is taken first, and then `members`, as by a reset, which tries to get it
//! exclusively, without waiting. So does a joiner: a scope that has no members is mounted afresh over
//! its layers, since an overlay need not notice what the host has changed below it meanwhile. The lock
//! of the mount points comes last. A starter that is killed leaves a table that names every layer that
//! may exist, and the next one goes on from there.
//!
//! Layers that are mounted are never mounted a second time: the overlay would lose its work directory.
//! Members hold the directory of the layers locked, and who mounts them has it exclusively.

use std::path::{Path, PathBuf};

use super::{
    assemble::{AssembleReport, Assembly},
    image,
    keep::{ScopeNamespace, unpin},
    layers, mount_points, plan_as_root, plan_as_user,
    scope_options::ScopeOptions,
};
use crate::{
    contract::{Context, Error, Scope, host_paths, user::Privilege},
    linux::{
        files::{make_dir, remove_tree},
        flock::{Lock, Mode},
        helper::Helper,
    },
    mount::{
        denied::{explain, explain_to_root},
        interface::Interface,
    },
    store::{
        base::Base,
        host_snapshot::HostSnapshot,
        layer_table::{Table, TableHeader},
        members::{MemberLocks, Membership, may_have_members},
        paths::ScopePaths,
        project::Project,
        scope_limit,
    },
};

/// What a member has of its scope.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) namespace: ScopeNamespace,
    /// What an administrator should know of the scope: what could not be had when it was made, and
    /// that the host has changed since.
    pub(crate) warnings: Vec<String>,
    pub(crate) membership: Membership,
}

impl Member {
    /// Joins `scope` as `id`, and makes it first if it is not mounted.
    pub(crate) fn join(
        base: &Base,
        scope: &Scope,
        id: &str,
        options: &ScopeOptions<'_>,
    ) -> Result<Self, Error> {
        let paths = ScopePaths::new(base, scope);
        let mut warnings = Vec::new();
        let mut changing = None;
        let (namespace, header, locks) = match join_members(base, scope, &paths)? {
            Some(joined) => joined,
            None => {
                changing = Some(Lock::take(&paths.changing, Mode::Exclusive)?);
                let making = Making {
                    base,
                    scope,
                    paths: &paths,
                    options,
                };
                making.join_or_make(&mut warnings)?
            }
        };
        if base.privilege == Privilege::Root {
            // The pin can be found from here on; what a member holds only once its marker says so.
            drop(changing.take());
        }
        warnings.extend(changes(base, scope, &paths, &header)?);
        let membership = Membership::take(&paths, id, locks)?;
        namespace.announce(membership.marker())?;
        Ok(Self {
            namespace,
            warnings,
            membership,
        })
    }
}

/// What a joiner has of a scope that is mounted.
type Joined = (ScopeNamespace, TableHeader, MemberLocks);

/// Joins a scope that is pinned and has members. What members hold, without root, may end with the last
/// of them at any time.
fn join_members(base: &Base, scope: &Scope, paths: &ScopePaths) -> Result<Option<Joined>, Error> {
    // Without members nothing is locked here: that would keep another joiner from mounting it afresh.
    if base.privilege == Privilege::User || !may_have_members(paths)? {
        return Ok(None);
    }
    let shared = Lock::take(&paths.members_lock, Mode::Shared)?;
    // While `members` is held, nothing takes the pin away, though the last one may leave.
    if !may_have_members(paths)? {
        return Ok(None);
    }
    let Some((namespace, header)) = ScopeNamespace::find(base.privilege, paths)? else {
        return Ok(None);
    };
    let layers = hold_layers(scope, paths, Mode::Shared)?;
    Ok(Some((namespace, header, MemberLocks::new(shared, layers))))
}

/// A scope that is to be mounted, and where.
#[derive(Clone, Copy)]
struct Making<'a> {
    base: &'a Base,
    scope: &'a Scope,
    paths: &'a ScopePaths,
    options: &'a ScopeOptions<'a>,
}

impl Making<'_> {
    /// Joins the scope, and mounts it first, unless it has members. The caller holds the lock `changing`.
    fn join_or_make(&self, warnings: &mut Vec<String>) -> Result<Joined, Error> {
        let Self {
            base, scope, paths, ..
        } = *self;
        let alone = match base.privilege {
            Privilege::Root => Lock::try_exclusive(&paths.members_lock)?,
            Privilege::User => None,
        };
        let (shared, found) = match alone {
            Some(alone) if !may_have_members(paths)? => {
                base.at_home("mount the scope afresh", |base| {
                    unpin(&ScopePaths::new(base, scope))
                })?;
                let shared = alone
                    .share()
                    .context("share the lock", &paths.members_lock)?;
                (shared, None)
            }
            alone => {
                drop(alone);
                let shared = Lock::take(&paths.members_lock, Mode::Shared)?;
                (shared, ScopeNamespace::find(base.privilege, paths)?)
            }
        };
        let ((namespace, header), layers) = match found {
            Some(found) => (found, hold_layers(scope, paths, Mode::Shared)?),
            None => {
                make_dir(&paths.data)?;
                self.limit_at_home()?;
                let layers = hold_layers(scope, paths, Mode::Exclusive)?;
                let made = self.make_at_home(warnings)?;
                let layers = layers.share().context("share the lock", &paths.data)?;
                (made, layers)
            }
        };
        Ok((namespace, header, MemberLocks::new(shared, layers)))
    }

    /// Gives the scope its limit in the mount namespace that the base belongs to.
    fn limit_at_home(&self) -> Result<(), Error> {
        let Some(size) = self.options.size else {
            return Ok(());
        };
        self.base.at_home("give the scope its limit", |base| {
            scope_limit::mount(&ScopePaths::new(base, self.scope), size)
        })
    }

    /// Makes the scope in the mount namespace that the base belongs to.
    fn make_at_home(
        &self,
        warnings: &mut Vec<String>,
    ) -> Result<(ScopeNamespace, TableHeader), Error> {
        if self.base.is_home() {
            return self.make(warnings);
        }
        let found = self.base.at_home("make the scope", |base| {
            let mut warnings = Vec::new();
            let paths = &ScopePaths::new(base, self.scope);
            Making {
                base,
                paths,
                ..*self
            }
            .make(&mut warnings)?;
            Ok(warnings)
        });
        warnings.extend(found?);
        ScopeNamespace::find_made(self.base.privilege, self.paths)
    }

    /// Makes the scope. The caller holds the lock `changing`.
    fn make(&self, warnings: &mut Vec<String>) -> Result<(ScopeNamespace, TableHeader), Error> {
        let Self {
            base,
            scope,
            paths,
            options,
        } = *self;
        undone_if_new(paths, || {
            let project = match base.privilege {
                Privilege::Root => scope_limit::lift(paths, options.size)?,
                Privilege::User => None,
            };
            let assembled = assemble(base, paths, options, project);
            let (report, helper) = assembled.map_err(|error| match base.privilege {
                Privilege::Root => explain_to_root(error, &base.path),
                Privilege::User => explain(error),
            })?;
            if let (Some(project), Some(bytes)) = (project, options.size) {
                project.set_limit(&paths.data, bytes)?;
            }
            warnings.extend(report.warnings(scope));
            let kept = ScopeNamespace::keep(base.privilege, paths, &helper)?;
            // Mount points of members that were killed: until now nothing was mounted to remove them
            // from.
            mount_points::release_all(base, scope, Some(&kept.0))?;
            Ok(kept)
        })
    }
}

/// Holds the directory of the layers, which who mounts them has alone for that time.
pub(crate) fn hold_layers(scope: &Scope, paths: &ScopePaths, mode: Mode) -> Result<Lock, Error> {
    Lock::directory(&paths.data, mode)?.ok_or_else(|| Error::MountedElsewhere {
        name: scope.to_string(),
    })
}

/// Makes a scope by `make`; one that did not exist and cannot be made is not there afterwards.
fn undone_if_new<T>(
    paths: &ScopePaths,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let is_new = Table::read(paths)?.is_none();
    let made = make();
    if made.is_err() && is_new {
        // The first error is returned; what cannot be undone now, the next maker finds.
        let _ = unpin(paths)
            .and_then(|()| scope_limit::remove(paths))
            .and_then(|()| remove_tree(&paths.data))
            .and_then(|()| remove_tree(&paths.live))
            .and_then(|()| remove_tree(&paths.records));
    }
    made
}

/// Plans the view, and has a helper assemble it. The helper that is returned keeps the namespace.
fn assemble(
    base: &Base,
    paths: &ScopePaths,
    options: &ScopeOptions<'_>,
    project: Option<Project>,
) -> Result<(AssembleReport, Helper), Error> {
    make_dir(&paths.data)?;
    make_dir(&paths.members())?;
    let mut table = Table::read(paths)?.unwrap_or_else(Table::new);
    let mut assembly = plan(base, paths, options, &mut table)?;
    assembly.project = project;
    // Before the layers are used: a killed starter must not leave one that no table names.
    table.write(paths)?;
    let (report, helper) = Helper::start("assemble the overlay", || assembly.assemble())?;
    table.read_only.clone_from(&report.read_only);
    table.unprotected.clone_from(&report.unprotected);
    table.locked = report.locked;
    table.keeps_host = report.keeps_host;
    table.write(paths)?;
    Ok((report, helper))
}

/// Decides all that can be decided before the fork. Without root the layers are made here as well.
fn plan(
    base: &Base,
    paths: &ScopePaths,
    options: &ScopeOptions<'_>,
    table: &mut Table,
) -> Result<Assembly, Error> {
    let (mut plan, interface, image) = match base.privilege {
        Privilege::Root => (
            plan_as_root::plan(base, options)?,
            Some(Interface::ask()),
            options.image.clone(),
        ),
        Privilege::User => {
            let plan = plan_as_user::plan(&base.path, options)?;
            let image = options.image.as_ref().map(image::without_mounts);
            (plan, None, image.transpose()?)
        }
    };
    remove_tree(&paths.live_masks())?;
    plan.assign_layers(base.privilege, paths, table);
    if base.privilege == Privilege::User {
        layers::make_all_as_user(&plan.parts)?;
    }
    table.snapshot = HostSnapshot::take(plan.lower.iter().map(PathBuf::as_path));
    let at = match interface {
        Some(Interface::Classic) => paths.view.clone(),
        _ => base.path.join("root"),
    };
    make_dir(&at)?;
    let image_apart = ["image", "empty"].map(|name| paths.records.join(name));
    image_apart.iter().try_for_each(|dir| make_dir(dir))?;
    Ok(Assembly {
        image_apart,
        privilege: base.privilege,
        plan,
        image,
        at,
        persistent: base.persistent,
        interface,
        unprotected: options.unprotected.to_vec(),
        project: None,
    })
}

/// Says so if the host is not what it was when the scope was made.
fn changes(
    base: &Base,
    scope: &Scope,
    paths: &ScopePaths,
    header: &TableHeader,
) -> Result<Option<String>, Error> {
    let matters = |path: &Path| !host_paths::is_apart(path) && !path.starts_with(&base.path);
    if header.snapshot.is_unchanged(matters) {
        return Ok(None);
    }
    let table = Table::read(paths)?.unwrap_or_else(Table::new);
    let changed = table.snapshot.changed();
    Ok((!changed.is_empty()).then(|| {
        format!(
            "overlay {scope}: the node changed below it ({}); the overlay shows it when all members have ended",
            changed.join(", ")
        )
    }))
}

//! The view of one container in a scope.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns, unshare};
use reaper_spec::ImageMode;
use rustix::{
    mount::{MountPropagationFlags, mount_change},
    process::chdir,
};

use crate::{
    base::Base,
    contract::{Context, Error, Scope, View, ViewRequest},
    live::Member,
    volumes::{
        IMAGE_ROOT,
        points::{self, Owner},
        volume::Volume,
    },
};

/// What the monitor holds of a view.
pub(crate) struct SharedView {
    base: Base,
    scope: Scope,
    id: String,
    cwd: PathBuf,
    image_at: bool,
    member: Option<Member>,
    volumes: Vec<Volume>,
    had_volumes: bool,
    namespace: Option<File>,
    remove_with_last: bool,
}

impl SharedView {
    pub(crate) fn new(
        base: Base,
        scope: Scope,
        request: &ViewRequest,
        member: Member,
        volumes: Vec<Volume>,
        remove_with_last: bool,
    ) -> Self {
        Self {
            base,
            scope,
            id: request.unique_id(),
            cwd: request.cwd.clone(),
            image_at: request.image == ImageMode::At,
            member: Some(member),
            had_volumes: !volumes.is_empty(),
            volumes,
            namespace: None,
            remove_with_last,
        }
    }
}

/// Gives the calling process mounts of its own, which still hear of those they were copied from.
pub(crate) fn own_namespace() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts of", "/")?;
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", downstream).context("make a slave of", "/")
}

/// Prepares the mounts of a new namespace for a view to be assembled of them: what the host mounts
/// below its own trees later arrives, nothing that is done here reaches the host, and every mount can
/// be bound and hold the layers of an overlay.
///
/// The kernel refuses both for an unbindable mount (`EINVAL`; "overlayfs: failed to clone
/// upperpath"), and where one is locked by a user namespace a recursive bind around it, too
/// (`EPERM`). Becoming a slave takes that property away since Linux 6.17 only; becoming shared does
/// on every kernel, and adds no way to the host: a mount that is not shared yet gets a peer group of
/// its own.
pub(crate) fn make_bindable_slaves() -> Result<(), Error> {
    for flags in [
        MountPropagationFlags::SHARED,
        MountPropagationFlags::DOWNSTREAM,
    ] {
        mount_change("/", flags | MountPropagationFlags::REC).context("make a slave of", "/")?;
    }
    Ok(())
}

/// Opens the mount namespace of the process `pid`.
pub(crate) fn namespace_of(pid: u32) -> Result<File, Error> {
    let path = format!("/proc/{pid}/ns/mnt");
    File::open(&path).context("keep the mount namespace", path)
}

/// Changes to the working directory of a container's first process.
pub(crate) fn change_to(cwd: &Path) -> Result<(), Error> {
    chdir(cwd).context("change to", cwd)
}

/// The same where it may be missing: it is made in the overlay.
pub(crate) fn make_and_change_to(cwd: &Path) -> Result<(), Error> {
    if !cwd.exists() {
        fs::create_dir_all(cwd).context("make the working directory", cwd)?;
    }
    change_to(cwd)
}

/// Changes to the container's working directory if it still is there, else to the root: a process
/// that joins later names its own.
pub(crate) fn change_near(cwd: &Path) -> Result<(), Error> {
    chdir(cwd).or_else(|_| chdir("/")).context("change to", "/")
}

impl View for SharedView {
    fn enter(&self, first: bool) -> Result<(), Error> {
        match (&self.namespace, &self.member) {
            (Some(namespace), _) if !first => {
                setns(namespace, CloneFlags::CLONE_NEWNS).context("enter the view of", &self.id)?;
                change_near(&self.cwd)
            }
            (None, Some(member)) if first => {
                member.pin.enter_copy(&self.volumes)?;
                make_and_change_to(&self.cwd)
            }
            _ => {
                let released = io::Error::from(io::ErrorKind::InvalidInput);
                Err(released).context("enter the view of", &self.id)
            }
        }
    }

    fn entered(&mut self, pid: u32) -> Result<(), Error> {
        self.namespace = Some(namespace_of(pid)?);
        // The container's namespace has them now; copies would keep devices busy.
        self.volumes.clear();
        Ok(())
    }

    fn environment(&self) -> Vec<String> {
        let image = self
            .image_at
            .then(|| format!("REAPER_IMAGE_ROOT={IMAGE_ROOT}"));
        image.into_iter().collect()
    }

    fn warnings(&self) -> Vec<String> {
        let member = self.member.as_ref();
        member.map_or_else(Vec::new, |member| member.warnings.clone())
    }

    fn release(&mut self) -> Result<(), Error> {
        // First the mounts, then what they were mounted on.
        self.namespace = None;
        self.volumes.clear();
        if self.had_volumes {
            points::release(&self.base, Owner::Scope(&self.scope), &self.id)?;
            self.had_volumes = false;
        }
        // Nothing else of the member is left when the scope may go.
        let Some(Member { membership, .. }) = self.member.take() else {
            return Ok(());
        };
        membership.end(&self.base, &self.scope, self.remove_with_last)
    }
}

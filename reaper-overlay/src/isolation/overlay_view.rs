//! The view of one container in a scope.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns, unshare};
use reaper_spec::ImageMode;
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{MountPropagationFlags, mount_change},
};

use crate::{
    contract::{Context, Error, Scope, View, ViewRequest},
    linux::namespace::{change_near, lock, make_and_change_to, namespace_of, own_namespace},
    mount::pivot,
    scope::{
        join::Member,
        keep::Pin,
        mount_points::{self, Owner},
    },
    store::base::Base,
    volume::opened::{self, IMAGE_ROOT, Volume},
};

impl Pin {
    /// Moves the calling process into a copy of its own, with `volumes`.
    pub(crate) fn enter_copy(&self, volumes: &[Volume]) -> Result<(), Error> {
        self.join()?;
        let Some(view) = &self.beside else {
            if self.locked {
                // Slaves from the start, since it belongs to another user namespace.
                unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts of", "/")?;
            } else {
                own_namespace()?;
            }
            return volumes.iter().try_for_each(|volume| volume.mount(None));
        };
        unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts of", "/")?;
        // The host's are slaves already.
        let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change(view, downstream).context("make a slave of", view)?;
        hide_own(view)?;
        let found = opened::find(volumes)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let new = openat(CWD, view, flags, Mode::empty()).context("open", view)?;
        let old = pivot::exchange(&new, view)?;
        for (volume, found) in volumes.iter().zip(&found) {
            volume.mount(found.as_ref())?;
        }
        drop(found);
        old.let_go()?;
        // What is locked does not go when the host unmounts it.
        if self.locked && !volumes.iter().any(Volume::hears_of_the_host) {
            lock()?;
        }
        Ok(())
    }
}

/// Makes the mount that `view` lies in unbindable again, which a copy of a namespace is not: a volume
/// shall not show the overlays.
fn hide_own(view: &Path) -> Result<(), Error> {
    for dir in view.ancestors().skip(1) {
        match mount_change(dir, MountPropagationFlags::UNBINDABLE) {
            // Nothing is mounted there.
            Err(Errno::INVAL) => {}
            other => return other.context("make unbindable", dir),
        }
    }
    Ok(())
}

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
            mount_points::release(&self.base, Owner::Scope(&self.scope), &self.id)?;
            self.had_volumes = false;
        }
        // Nothing else of the member is left when the scope may go.
        let Some(Member { membership, .. }) = self.member.take() else {
            return Ok(());
        };
        membership.end(&self.base, &self.scope, self.remove_with_last)
    }
}

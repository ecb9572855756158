//! The mount namespace of a scope, kept by a pin.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{MountPropagationFlags, mount_change},
    process::{chdir, chroot},
};

use crate::{
    contract::{Context, Error},
    linux::namespace::{lock, own_namespace},
    live::open_pin,
    mount::pivot,
    store::{layer_table::Brief, paths::ScopePaths},
    volumes::volume::{self, Volume},
};

/// The namespace of a scope that is alive.
///
/// Without the system calls that take a tree from one namespace to another
/// ([`Interface::Classic`](crate::mount::interface::Interface::Classic)) its root is the host's, as a slave:
/// what the host mounts and unmounts there arrives, and nothing goes back. The view lies beside,
/// below Reaper's own files. A member takes its volumes from there into a copy of its own, makes
/// the view the root, and lets go of the host's before anything else runs.
#[derive(Debug)]
pub(crate) struct Pin {
    namespace: File,
    /// Where the view is, if it is not the root.
    beside: Option<PathBuf>,
    /// Whether the mounts of the view shall not be taken away by workloads.
    locked: bool,
}

/// Where the view of a scope is that keeps the host's root.
pub(crate) fn beside(paths: &ScopePaths) -> PathBuf {
    // Not on a filesystem of the host, which can be a volume.
    paths.live.join("view")
}

impl Pin {
    pub(crate) fn new(paths: &ScopePaths, namespace: File, brief: &Brief) -> Self {
        Self {
            namespace,
            beside: brief.keeps_host.then(|| beside(paths)),
            locked: brief.locked,
        }
    }

    /// The one of a scope, if it is alive.
    pub(crate) fn open(paths: &ScopePaths) -> Result<Option<Self>, Error> {
        let Some(namespace) = open_pin(paths)? else {
            return Ok(None);
        };
        let brief = Brief::read(paths)?.unwrap_or_default();
        Ok(Some(Self::new(paths, namespace, &brief)))
    }

    /// Whether volumes have to be taken from the host's root that it has.
    pub(crate) fn keeps_host(&self) -> bool {
        self.beside.is_some()
    }

    fn join(&self) -> Result<(), Error> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNS)
            .context("enter", "the mount namespace of the scope")
    }

    /// Moves the calling process into the view that all members share.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        self.join()?;
        if let Some(view) = &self.beside {
            chroot(view).context("change the root to", view)?;
            chdir("/").context("change to", "/")?;
        }
        Ok(())
    }

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
        let found = volume::find(volumes)?;
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

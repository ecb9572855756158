//! Putting the mount namespace of a scope together. All of it runs in a helper process.

use std::{
    fs, iter,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{CWD, Mode, OFlags, open},
    mount::{MountAttrFlags, MountPropagationFlags, mount_change},
};
use serde::{Deserialize, Serialize};

use super::{
    layers::{Layering, Placed},
    plan::{Plan, Submount},
};
use crate::{
    contract::{
        Context, Error, Scope,
        host_paths::{HOST_TREES, is_below},
    },
    linux::{
        helper::Helper,
        mountinfo,
        namespace::{lock_mounts, make_bindable, make_bindable_slaves},
        syscall,
    },
    mount::{
        bind::relative,
        image::Image,
        interface::{Interface, Recursion},
        mask::Mask,
        new_root::View,
        overlayfs::Overlay,
        pivot,
    },
};

/// All that is needed to assemble a scope, decided before the fork.
pub(crate) struct Recipe {
    pub(crate) plan: Plan,
    pub(crate) root: Placed,
    /// For each of the plan's submounts, in the same order.
    pub(crate) layers: Vec<Placed>,
    /// Masks that lie on the host's own trees, where there is no layer to hide them in.
    pub(crate) covers: Vec<Mask>,
    /// The image's root, to show beneath the host's.
    pub(crate) image: Option<Image>,
    /// The directory to assemble on.
    pub(crate) at: PathBuf,
    pub(crate) persistent: bool,
    pub(crate) interface: Interface,
    /// The mounts that need not be protected where that cannot be done.
    pub(crate) unprotected: Vec<PathBuf>,
}

/// What came out of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Escaped as in mountinfo, as are the others.
    pub(crate) read_only: Vec<String>,
    /// Writable, since they could not be protected and need not be.
    pub(crate) unprotected: Vec<String>,
    /// Not in the view, since they could not even be shown and need not be.
    pub(crate) missing: Vec<String>,
    /// Without what the image has there, since the image itself lies there.
    pub(crate) without_image: Vec<String>,
    pub(crate) locked: bool,
    /// Whether the namespace still has the host's root, with the view beside it: volumes can only
    /// be taken from where they are.
    pub(crate) keeps_host: bool,
}

impl Outcome {
    /// What people should know of it.
    pub(crate) fn warnings(&self, scope: &Scope) -> Vec<String> {
        let kinds = [
            (
                &self.read_only,
                "read-only, since there can be no overlay over them",
            ),
            (
                &self.unprotected,
                "not protected: what is written there reaches the node",
            ),
            (&self.missing, "not in the view"),
            (
                &self.without_image,
                "without what the image has there, since the image lies there itself",
            ),
        ];
        let mut warnings: Vec<String> = kinds
            .into_iter()
            .filter(|(paths, _)| !paths.is_empty())
            .map(|(paths, how)| format!("overlay {scope}: {how}: {}", paths.join(", ")))
            .collect();
        if self.keeps_host {
            warnings.push(format!(
                "overlay {scope}: open_tree(2) is missing or forbidden here: no volume can be \
                 shared with the host, and where one hears of the host's mounts, its container's \
                 mounts are not locked"
            ));
        }
        if !self.locked {
            warnings.push(format!(
                "overlay {scope}: its mounts are not locked, since user namespaces are forbidden"
            ));
        }
        warnings
    }
}

/// What stands for a mount of the host in the view.
enum Stand {
    Overlay,
    ReadOnly,
    Writable,
    Nothing,
}

impl Recipe {
    /// Moves the calling process into a new mount namespace that shows the scope.
    pub(crate) fn assemble(&self) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let mut layers = Layering::begin(iter::once(&self.root).chain(&self.layers))?;
        let outside = syscall::mount_namespace_id().ok();
        unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts for", &self.at)?;
        make_bindable_slaves()?;
        if let Some(image) = &self.image {
            image.mount()?;
        }
        layers = layers.next()?;
        let image = self.image.as_ref().map(|image| image.root.as_path());
        self.overlay(&self.root, MountAttrFlags::empty(), image)
            .mount(self.interface, CWD, &self.at)
            .context("mount the overlay over", "/")?;
        let root = open(
            &self.at,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context("open", &self.at)?;
        let view = View {
            root: root.as_fd(),
            interface: self.interface,
        };
        let (trees, shown) = self.plan.host.split_at(HOST_TREES.len());
        for tree in trees {
            // A symlink is followed by lookups in the view itself.
            if fs::symlink_metadata(tree).is_ok_and(|metadata| !metadata.is_symlink()) {
                view.bind(tree, Recursion::All).context("bind", tree)?;
            }
        }
        let hiding = self.hiding();
        let is_hidden = |path: &Path| hiding.iter().any(|mask| is_below(path, mask));
        for (submount, placed) in self.plan.submounts.iter().zip(&self.layers) {
            layers = layers.next()?;
            if is_hidden(&submount.path) {
                continue;
            }
            let name = mountinfo::escape(submount.path.as_os_str());
            match self.protect(view, submount, placed)? {
                Stand::Overlay => {}
                Stand::ReadOnly => outcome.read_only.push(name),
                Stand::Writable => outcome.unprotected.push(name),
                Stand::Nothing => outcome.missing.push(name),
            }
        }
        // On the mounts that they may lie in.
        for path in shown {
            if is_hidden(path) {
                outcome.missing.push(mountinfo::escape(path.as_os_str()));
            } else {
                view.bind(path, Recursion::All).context("bind", path)?;
            }
        }
        for path in &self.plan.detached {
            view.detach(path)?;
        }
        for mask in &self.covers {
            view.cover(mask)?;
        }
        let mut top = Path::new("/");
        if self.interface == Interface::Classic {
            // The members let go of the host's root, and lock what they keep.
            outcome.keeps_host = true;
            outcome.locked = Helper::run("lock mounts", || Ok(lock_mounts()))?;
            top = &self.at;
        } else {
            pivot::exchange(&root, &self.at)?.let_go()?;
            outcome.locked = lock_mounts();
        }
        make_bindable(outside)?;
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        mount_change(top, shared).context("share within the scope", top)?;
        Ok(outcome)
    }

    /// What hides a place where something would be mounted.
    fn hiding(&self) -> Vec<&Path> {
        let masks = self.layers.iter().flat_map(|layer| &layer.masks);
        masks
            .chain(&self.root.masks)
            .map(|mask| mask.path.as_path())
            .collect()
    }

    /// Mounts what stands for one mount of the host.
    fn protect(&self, view: View<'_>, mount: &Submount, layer: &Placed) -> Result<Stand, Error> {
        if mount.overlay {
            let overlay = self.overlay(layer, mount.attributes, None);
            match overlay.mount(self.interface, view.root, relative(&mount.path)) {
                Ok(()) => return Ok(Stand::Overlay),
                Err(error) => tracing::debug!(
                    "no overlay over {} ({}): {error}",
                    mount.path.display(),
                    mount.fs_type
                ),
            }
        }
        let stand = match view.bind_read_only(&mount.path, Recursion::Alone) {
            Ok(()) => Stand::ReadOnly,
            Err(_) if self.unprotected.contains(&mount.path) => {
                if view.bind(&mount.path, Recursion::Alone).is_err() {
                    return Ok(Stand::Nothing);
                }
                Stand::Writable
            }
            Err(source) => {
                let path = mount.path.clone();
                return Err(Error::Unprotected { path, source });
            }
        };
        for mask in &layer.masks {
            view.cover(mask)?;
        }
        Ok(stand)
    }

    fn overlay(
        &self,
        placed: &Placed,
        attributes: MountAttrFlags,
        image: Option<&Path>,
    ) -> Overlay {
        let mut lower = Vec::new();
        if !placed.masks.is_empty() {
            lower.push(placed.layer.live_mask.clone());
        }
        lower.push(placed.layer.mount.clone());
        lower.extend(image.map(Path::to_owned));
        Overlay {
            lower,
            upper: placed.layer.upper.clone(),
            work: placed.layer.work.clone(),
            persistent: self.persistent,
            userxattr: false,
            attributes,
        }
    }
}

//! Assembling the mount namespace of a scope. All of it runs in a helper process.
//!
//! The root overlay is mounted first, on a directory below the base; on it the parts in the order
//! of the plan; then what is hidden is masked, and the result becomes the root. A layer has to
//! exist before it is mounted. As root a second process makes the layers meanwhile, since half of
//! the time is the kernel's work on each. In the end the mounts are locked by a user namespace that
//! owns a copy of them: a container can neither unmount them nor make them writable.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    libc,
    sched::{CloneFlags, unshare},
};
use rustix::{
    fs::{Mode, OFlags, open},
    mount::{MountPropagationFlags, mount_change},
};
use serde::{Deserialize, Serialize};

use super::{
    image,
    layers::Layering,
    layers_as_user::lower_of,
    plan::{Part, PartKind, ViewPlan},
};
use crate::{
    contract::{Context, Error, Scope, host_paths::is_below, user::Privilege},
    linux::{
        helper::Helper,
        mountinfo,
        namespace::{self, Outside, lock_mounts, make_bindable_slaves, unshare_as},
    },
    mount::{
        denied::{FIRST_OVERLAY, ROOT_OVERLAY},
        image::Image,
        interface::{Interface, Recursion},
        mask::LayerStyle,
        new_root::NewRoot,
        overlayfs::Overlay,
        pivot,
    },
    store::{layer_table::Layer, project::Project},
};

/// All that is needed to assemble a scope, decided before the fork.
pub(crate) struct Assembly {
    pub(crate) privilege: Privilege,
    pub(crate) plan: ViewPlan,
    /// Shown beneath the host's root.
    pub(crate) image: Option<Image>,
    /// Where it can be mounted apart from the host's root, and an empty directory.
    pub(crate) image_apart: [PathBuf; 2],
    /// The directory to assemble on.
    pub(crate) at: PathBuf,
    pub(crate) persistent: bool,
    /// Missing where only the root of the new user namespace can ask for it.
    pub(crate) interface: Option<Interface>,
    /// The mounts that need not be protected where that cannot be done.
    pub(crate) unprotected: Vec<PathBuf>,
    /// The project of new layers.
    pub(crate) project: Option<Project>,
}

/// What became of the plan.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct AssembleReport {
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

impl AssembleReport {
    /// What an administrator should know of it.
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
                "without what the image has there, since the image lies there itself or the kernel refuses it",
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

/// Whether the host has nothing at `path` any more, so that there is nothing to protect or to show.
fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What a part was mounted as.
enum Mounted {
    AsPlanned,
    ReadOnly,
}

impl Assembly {
    /// Moves the calling process into new namespaces that show the scope.
    pub(crate) fn assemble(mut self) -> Result<AssembleReport, Error> {
        let mut layers = match self.privilege {
            Privilege::Root => Some(Layering::begin(self.layered(), self.project)?),
            // They exist already.
            Privilege::User => None,
        };
        let outside = Outside::of_caller();
        match self.privilege {
            Privilege::Root => {
                unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts for", &self.at)?;
            }
            Privilege::User => unshare_as(namespace::own())?,
        }
        make_bindable_slaves()?;
        let interface = self.interface.unwrap_or_else(Interface::ask);
        if let Some(image) = &self.image {
            image.mount()?;
            if self.privilege == Privilege::Root {
                let [apart, empty] = &self.image_apart;
                self.image = Some(image.set_apart(apart, empty)?);
            }
        }
        let mut report = AssembleReport::default();
        let mut parts = self.plan.parts.iter();
        if let Some(first) = parts.next() {
            layers = layers.map(Layering::next).transpose()?;
            self.mount_first(interface, first)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(&self.at, flags, Mode::empty()).context("open", &self.at)?;
        let new_root = NewRoot {
            root: root.as_fd(),
            interface,
        };
        for part in parts {
            if part.layer.is_some() {
                layers = layers.map(Layering::next).transpose()?;
            }
            self.mount(new_root, part, &mut report)?;
        }
        let missing = self.plan.missing.iter();
        report.missing.extend(missing.map(|path| escaped(path)));
        self.hide(new_root)?;
        let top = self.finish(&root, interface, outside.as_ref(), &mut report)?;
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        mount_change(top, shared).context("share within the scope", top)?;
        Ok(report)
    }

    /// The parts whose layers are made meanwhile, in the order in which they are needed.
    fn layered(&self) -> impl Iterator<Item = &Part> {
        self.plan.parts.iter().filter(|part| part.layer.is_some())
    }

    /// Mounts the overlay that becomes the root.
    fn mount_first(&self, interface: Interface, part: &Part) -> Result<(), Error> {
        let step = match self.privilege {
            Privilege::Root => ROOT_OVERLAY,
            Privilege::User => FIRST_OVERLAY,
        };
        let Some(layer) = &part.layer else {
            return Ok(());
        };
        let overlay = self.overlay(part, layer);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = open(&self.at, flags, Mode::empty()).context("open", &self.at)?;
        overlay
            .mount(interface, at.as_fd())
            .context(step, &part.path)
    }

    /// Mounts one part on the root that is being assembled.
    fn mount(
        &self,
        root: NewRoot<'_>,
        part: &Part,
        report: &mut AssembleReport,
    ) -> Result<(), Error> {
        let path = &part.path;
        if part.is_for_image {
            self.mount_for_image(root, part, report);
            return Ok(());
        }
        if self.lacks_image(part) {
            report.without_image.push(escaped(path));
        }
        let mounted = match (&part.kind, self.privilege) {
            (PartKind::Absent, _) => return Ok(()),
            (PartKind::Host, Privilege::Root) => {
                return match root.bind(path, Recursion::All) {
                    Err(_) if is_gone(path) => Ok(()),
                    bound => bound.context("bind", path),
                };
            }
            (PartKind::Host, Privilege::User) => {
                let bound = root.bind(path, Recursion::All);
                bound.map(|()| Mounted::AsPlanned)
            }
            _ => self.protect(root, part),
        };
        match mounted {
            Ok(Mounted::AsPlanned) => return Ok(()),
            Ok(Mounted::ReadOnly) => report.read_only.push(escaped(path)),
            // The host has unmounted and removed it since the plan was made. It may be there again.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && (is_gone(path) || !self.is_place_removed(path)) =>
            {
                return Ok(());
            }
            Err(_) if self.unprotected.contains(path) => {
                if self.privilege == Privilege::User || root.bind(path, Recursion::Alone).is_err() {
                    report.missing.push(escaped(path));
                    return Ok(());
                }
                report.unprotected.push(escaped(path));
            }
            Err(source) => {
                let path = path.clone();
                return Err(Error::Unprotected { path, source });
            }
        }
        // No layer hides what is masked.
        let mut masks = part.masks.iter();
        masks.try_for_each(|mask| root.mask_path(mask))
    }

    /// Shows, where a symlink of the host leads, what the image has in its place. Without it the
    /// part around shows the host's directory.
    fn mount_for_image(&self, root: NewRoot<'_>, part: &Part, report: &mut AssembleReport) {
        let has_any = |image: &Image| image::has_linked_dirs(&image.root, part);
        let (true, Some(layer)) = (self.image.as_ref().is_some_and(has_any), &part.layer) else {
            return;
        };
        let overlay = self.overlay(part, layer);
        let mounted = root
            .place(&part.path)
            .and_then(|place| overlay.mount(root.interface, place.as_fd()));
        if let Err(error) = mounted {
            tracing::debug!("no overlay over {}: {error}", part.path.display());
            report.without_image.push(escaped(&part.path));
        }
    }

    /// Whether a container has removed the directory that the host's mount on `path` needs in the view.
    fn is_place_removed(&self, path: &Path) -> bool {
        let around = self
            .layered()
            .filter(|part| is_below(path, &part.path) && path != part.path)
            .max_by_key(|part| part.path.components().count());
        let layer = around.and_then(|part| part.layer.as_ref());
        // A layer that cannot be read may have removed anything.
        layer.is_some_and(|layer| layer.has_removed(path).unwrap_or(true))
    }

    /// Mounts an overlay, or where there is none, the host's read-only.
    fn protect(&self, root: NewRoot<'_>, part: &Part) -> io::Result<Mounted> {
        if part.is_overlay()
            && let Some(layer) = &part.layer
        {
            let overlay = self.overlay(part, layer);
            let place = root.place(&part.path)?;
            match overlay.mount(root.interface, place.as_fd()) {
                Ok(()) => return Ok(Mounted::AsPlanned),
                Err(error) => tracing::debug!("no overlay over {}: {error}", part.path.display()),
            }
        }
        match self.privilege {
            Privilege::Root => root.bind_read_only(&part.path, Recursion::Alone)?,
            // The kernel allows no bind that leaves out what is mounted below.
            Privilege::User => root.bind_read_only(&part.path, Recursion::All)?,
        }
        Ok(match (&part.kind, self.privilege) {
            // A user's own view of what the user cannot change anyway: nothing to report.
            (PartKind::ReadOnly, Privilege::User) => Mounted::AsPlanned,
            _ => Mounted::ReadOnly,
        })
    }

    fn overlay(&self, part: &Part, layer: &Layer) -> Overlay {
        let style = LayerStyle::of(self.privilege);
        let mut lower = Vec::new();
        if !part.masks.is_empty() {
            lower.push(layer.mounted_mask(style).to_owned());
        }
        lower.push(match part.kind {
            PartKind::OverlayOverCopy(_) => lower_of(layer),
            _ => part.path.clone(),
        });
        lower.extend(self.image_beneath(part));
        Overlay {
            lower,
            upper: layer.upper.clone(),
            work: layer.work.clone(),
            persistent: self.persistent,
            userxattr: style == LayerStyle::User,
            attributes: part.attributes,
        }
    }

    /// What of the image lies beneath `part`.
    fn image_beneath(&self, part: &Part) -> Vec<PathBuf> {
        let Some(Image { root, .. }) = &self.image else {
            return Vec::new();
        };
        match self.privilege {
            Privilege::Root if part.path == Path::new("/") => vec![root.clone()],
            Privilege::Root if part.image_dirs.is_empty() => Vec::new(),
            _ => image::beneath(root, part),
        }
    }

    /// Whether something of the image cannot be shown beneath `part`.
    fn lacks_image(&self, part: &Part) -> bool {
        match (&self.image, self.privilege) {
            (Some(image), Privilege::User) => image::is_missing(&image.root, part),
            _ => false,
        }
    }

    /// Hides what no layer can hide.
    fn hide(&self, root: NewRoot<'_>) -> Result<(), Error> {
        for path in &self.plan.detached {
            root.detach(path)?;
        }
        for mask in &self.plan.masked_paths {
            root.mask_path(mask)?;
        }
        for path in &self.plan.hidden {
            match root.mask_directory(path, true) {
                // It lies below a mask.
                Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENOTDIR)) => {}
                masked => masked?,
            }
        }
        Ok(())
    }

    /// Makes the view the root, unless volumes have to be bound from the host's, and locks it.
    /// Returns where the view is.
    fn finish(
        &self,
        root: &OwnedFd,
        interface: Interface,
        outside: Option<&Outside>,
        report: &mut AssembleReport,
    ) -> Result<&Path, Error> {
        if self.privilege == Privilege::User {
            pivot::exchange(root, &self.at)?.detach_old()?;
            // A container enters it in another user namespace, for which the mounts are locked.
            report.locked = true;
            return Ok(Path::new("/"));
        }
        let mut top = Path::new("/");
        if interface == Interface::Classic {
            // The members detach the host's root, and lock what they keep.
            report.keeps_host = true;
            report.locked = Helper::run("lock mounts", || Ok(lock_mounts()))?;
            top = &self.at;
        } else {
            pivot::exchange(root, &self.at)?.detach_old()?;
            report.locked = lock_mounts();
        }
        if let Some(outside) = outside {
            outside.make_bindable()?;
        }
        Ok(top)
    }
}

fn escaped(path: &Path) -> String {
    mountinfo::escape(path.as_os_str())
}

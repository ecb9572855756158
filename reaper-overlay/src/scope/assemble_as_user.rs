//! Putting an ordinary user's mounts together. All of it runs in a helper process.

use std::{io, os::fd::AsFd, path::PathBuf};

use nix::libc;
use rustix::{
    fs::{CWD, Mode, OFlags, open},
    mount::{MountPropagationFlags, mount_change},
};

use super::{
    assemble::Outcome,
    image,
    layers_as_user::lower_of,
    plan_as_user::{Place, Shape},
};
use crate::{
    contract::{Context, Error},
    linux::{
        mountinfo,
        namespace::{self, make_bindable_slaves},
    },
    mount::{
        bind::relative,
        denied::FIRST_OVERLAY,
        interface::{Interface, Recursion},
        mask::Mask,
        new_root::View,
        overlayfs::Overlay,
        pivot,
    },
    store::layer_table::Layer,
};

/// All that is needed, decided and made before the fork.
pub(crate) struct Recipe {
    /// Parents before children, the root first. A layer for those that are overlays.
    pub(crate) places: Vec<(Place, Option<Layer>)>,
    /// What no layer can hide.
    pub(crate) covers: Vec<Mask>,
    /// The image's root, to show beneath the host's.
    pub(crate) image: Option<PathBuf>,
    /// The directory to assemble on.
    pub(crate) at: PathBuf,
    /// Shown as an empty directory: where the layers themselves are.
    pub(crate) hidden: PathBuf,
    /// The mounts that need not be protected where that cannot be done.
    pub(crate) unprotected: Vec<PathBuf>,
}

impl Recipe {
    /// Moves the calling process into new namespaces that show the scope.
    pub(crate) fn assemble(&self) -> Result<Outcome, Error> {
        namespace::unshare_as(namespace::own())?;
        make_bindable_slaves()?;
        // Only as root of the new namespace.
        let interface = Interface::ask();
        let mut places = self.places.iter();
        if let Some((root, Some(layer))) = places.next() {
            self.overlay(root, layer)
                .mount(interface, CWD, &self.at)
                .context(FIRST_OVERLAY, &root.path)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(&self.at, flags, Mode::empty()).context("open", &self.at)?;
        let view = View {
            root: root.as_fd(),
            interface,
        };
        // Whoever enters it does so in a user namespace of its own.
        let mut outcome = Outcome {
            locked: true,
            ..Outcome::default()
        };
        for (place, layer) in places {
            let name = || mountinfo::escape(place.path.as_os_str());
            let image = self.image.as_deref();
            if image.is_some_and(|image| image::is_missing(image, place)) {
                outcome.without_image.push(name());
            }
            match self.mount(view, place, layer.as_ref()) {
                Ok(true) => {}
                Ok(false) => {
                    outcome.read_only.push(name());
                    let mut masks = place.masks.iter();
                    masks.try_for_each(|mask| view.cover(mask))?;
                }
                // It has gone since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) if self.unprotected.contains(&place.path) => outcome.missing.push(name()),
                Err(source) => {
                    let path = place.path.clone();
                    return Err(Error::Unprotected { path, source });
                }
            }
        }
        for mask in &self.covers {
            view.cover(mask)?;
        }
        match view.cover_directory(&self.hidden, true) {
            // It lies below a mask.
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENOTDIR)) => {}
            covered => covered?,
        }
        pivot::exchange(&root, &self.at)?.let_go()?;
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        mount_change("/", shared).context("share within the scope", "/")?;
        Ok(outcome)
    }

    /// Returns false if an overlay was wanted and there is a read-only bind instead.
    fn mount(&self, view: View<'_>, place: &Place, layer: Option<&Layer>) -> io::Result<bool> {
        match (&place.shape, layer) {
            (Shape::Host, _) => view.bind(&place.path, Recursion::All)?,
            (Shape::ReadOnly, _) | (_, None) => {
                // Without what is mounted below the kernel allows no bind.
                view.bind_read_only(&place.path, Recursion::All)?;
            }
            (_, Some(layer)) => {
                let overlay = self.overlay(place, layer);
                if let Err(error) = overlay.mount(view.interface, view.root, relative(&place.path))
                {
                    tracing::debug!("no overlay over {}: {error}", place.path.display());
                    view.bind_read_only(&place.path, Recursion::All)?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn overlay(&self, place: &Place, layer: &Layer) -> Overlay {
        let mut lower = Vec::new();
        if !place.masks.is_empty() {
            lower.push(layer.mask.clone());
        }
        lower.push(match place.shape {
            Shape::Shell(_) => lower_of(layer),
            _ => place.path.clone(),
        });
        let image = self.image.as_deref();
        lower.extend(image.and_then(|image| image::beneath(image, place)));
        Overlay {
            lower,
            upper: layer.upper.clone(),
            work: layer.work.clone(),
            persistent: true,
            userxattr: true,
            attributes: place.attributes,
        }
    }
}

//! The directories of a scope's layers.
//!
//! As root they are made by one process while another one mounts those that exist already: half of
//! the time that a scope takes is the kernel's work on each layer.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    os::fd::AsFd,
    path::Path,
};

use rustix::pipe::{PipeFlags, pipe_with};

use super::{
    layers_as_user,
    plan::{Part, PartKind},
};
use crate::{
    contract::{Context, Error},
    linux::{
        file_attributes,
        files::{exists, make_dir, make_new_dir, remove_tree},
        handle::Handle,
        helper::Running,
    },
    mount::mask::{self, LayerStyle},
    store::{layer_table::Layer, project::Project},
};

const PURPOSE: &str = "make the layers";

/// Layers that are being made, one after another.
pub(crate) struct Layering {
    /// Read end of the progress pipe. The helper writes one byte per layer: 1 for success, 0 for
    /// failure.
    ///
    /// Declared before `making` because fields drop in order: closing the pipe stops the helper
    /// with `EPIPE`, and only then does dropping `making` wait for it.
    ready: Option<File>,
    making: Running<()>,
}

impl Layering {
    /// Begins to make the layers of `parts`, in their order; new ones in `project`.
    pub(crate) fn begin<'a>(
        parts: impl Iterator<Item = &'a Part>,
        project: Option<Project>,
    ) -> Result<Self, Error> {
        let (ready, report) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe to", PURPOSE)?;
        let mut report = File::from(report);
        let mut ready = Some(File::from(ready));
        let making = Running::begin(PURPOSE, || {
            // The helper's own copy of the read end would keep it from getting EPIPE.
            drop(ready.take());
            for part in parts {
                let made = make(part, LayerStyle::Trusted, project);
                let told = report.write_all(&[u8::from(made.is_ok())]);
                made?;
                match told {
                    // The parent has given up: the other layers are not needed.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                    other => other.context("answer to", PURPOSE)?,
                }
            }
            Ok(())
        })?;
        Ok(Self { ready, making })
    }

    /// Waits for the next layer, and says why it could not be made.
    pub(crate) fn next(self) -> Result<Self, Error> {
        let Self { mut ready, making } = self;
        let mut made = [0];
        let heard = ready
            .iter_mut()
            .try_for_each(|ready| ready.read_exact(&mut made));
        if heard.is_ok() && made == [1] {
            return Ok(Self { ready, making });
        }
        let ((), _helper) = making.finish()?;
        heard.context("hear from the helper to", PURPOSE)?;
        Err(Error::HelperDied {
            operation: PURPOSE,
            status: "it made no layer, and does not say why".to_owned(),
        })
    }
}

/// Makes the layers of `parts`, without root.
pub(crate) fn make_all_as_user(parts: &[Part]) -> Result<(), Error> {
    for part in parts {
        if let Some(layer) = &part.layer
            && make(part, LayerStyle::User, None)?
            && let PartKind::OverlayOverCopy(copies) = &part.kind
        {
            let is_inside = |other: &&Part| other.path.parent() == Some(&part.path);
            layers_as_user::make_copy(layer, copies, parts.iter().filter(is_inside))?;
        }
    }
    Ok(())
}

/// Makes the directories of the layer of `part`, as root in `project`; an upper layer that exists is kept.
/// Returns false if the part no longer exists on the host.
pub(crate) fn make(
    part: &Part,
    style: LayerStyle,
    project: Option<Project>,
) -> Result<bool, Error> {
    let Some(layer) = &part.layer else {
        return Ok(true);
    };
    let is_new = match style {
        LayerStyle::Trusted => make_upper(layer, project)?,
        LayerStyle::User if !layers_as_user::make_upper(layer, part)? => return Ok(false),
        LayerStyle::User => false,
    };
    if !is_new {
        remove_tree(&layer.mask)?;
    }
    if part.masks.is_empty() {
        return Ok(true);
    }
    for dir in layer.mask_dirs(style) {
        make_dir(dir)?;
        mask::write_layer(dir, &part.path, part.masks.iter(), style)?;
    }
    Ok(true)
}

/// Makes the upper and the work directory. Returns whether the layer is new.
fn make_upper(layer: &Layer, project: Option<Project>) -> Result<bool, Error> {
    let around = layer.upper.parent().unwrap_or(&layer.upper);
    let is_new = make_new_dir(around)?;
    // The work directory is the last step: a layer without one was cut short and is taken up again.
    if is_new || !exists(&layer.work)? {
        // Before there is anything in it: both directories have to inherit the same one, since the kernel refuses
        // to rename from the work directory to a directory whose project is another.
        project.map_or(Ok(()), |project| project.give(around))?;
        make_new_dir(&layer.upper)?;
        // The root of the view is the upper layer's own directory.
        match file_attributes::copy(&layer.mount, &layer.upper) {
            // The host has unmounted and removed it since. Without a work directory the layer is
            // taken up again if the path comes back.
            Err(error) if error.is_gone() => return Ok(is_new),
            copied => copied?,
        }
        make_new_dir(&layer.work)?;
    }
    Ok(is_new)
}

impl Layer {
    /// The directories that the layer of masks is written to.
    fn mask_dirs(&self, style: LayerStyle) -> Vec<&Path> {
        match style {
            LayerStyle::Trusted if self.mask == self.live_mask => vec![&self.live_mask],
            LayerStyle::Trusted => vec![&self.mask, &self.live_mask],
            LayerStyle::User => vec![&self.mask],
        }
    }

    /// Whether the upper layer hides what the host has at `path`, which lies on the layer's mount: a
    /// whiteout, another kind of file, or a directory on the way that was replaced.
    pub(crate) fn has_removed(&self, path: &Path) -> Result<bool, Error> {
        let relative = path.strip_prefix(&self.mount).unwrap_or(path);
        // Containers may be changing the layer: by descriptors, so that no symlink is followed.
        let Some(mut at) = Handle::of(&self.upper)? else {
            return Ok(false);
        };
        let mut is_replaced = false;
        let mut names = relative.components().peekable();
        while let Some(name) = names.next() {
            match Handle::at(at.as_fd(), name.as_os_str()).context("open", path)? {
                Some(found) => at = found,
                None => return Ok(is_replaced),
            }
            if names.peek().is_none() {
                return Ok(file_attributes::is_whiteout(at.metadata()));
            }
            if !at.is_dir() {
                return Ok(true);
            }
            is_replaced |= file_attributes::is_opaque(&at)?;
        }
        Ok(false)
    }

    /// The one of them that is mounted.
    pub(crate) fn mounted_mask(&self, style: LayerStyle) -> &Path {
        match style {
            LayerStyle::Trusted => &self.live_mask,
            LayerStyle::User => &self.mask,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use rustix::mount::MountAttrFlags;

    use super::*;
    use crate::contract::Scope;
    use crate::store::{base::Base, layer_table::Table, paths::ScopePaths};

    fn parts(base: &Path, mounts: &[&Path]) -> Vec<Part> {
        let paths = ScopePaths::new(&Base::at(base), &Scope::node());
        let mut table = Table::new();
        let part = |mount: &&Path| {
            let kind = PartKind::Overlay;
            let mut part = Part::new(mount.to_path_buf(), kind, MountAttrFlags::empty());
            part.layer = Some(table.layer(&paths, mount));
            part
        };
        mounts.iter().map(part).collect()
    }

    fn layer(part: &Part) -> &Layer {
        part.layer.as_ref().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn layering_makes_each_layer_before_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(dir.path(), &[Path::new("/"), Path::new("/tmp")]);
        let data = layer(&parts[0]).upper.ancestors().nth(2).unwrap();
        fs::create_dir_all(data).unwrap();
        let mut layering = Layering::begin(parts.iter(), None).unwrap();
        for layer in parts.iter().map(layer) {
            layering = layering.next().unwrap();
            assert_eq!(mode(&layer.upper), mode(&layer.mount));
            assert!(layer.work.is_dir());
        }
    }

    #[test]
    fn a_layer_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(dir.path(), &[Path::new("/")]);
        let layering = Layering::begin(parts.iter(), None).unwrap();
        let error = layering.next().map(drop).unwrap_err();
        let missing = layer(&parts[0]).upper.parent().unwrap();
        assert!(
            error.to_string().contains(missing.to_str().unwrap()),
            "{error}"
        );
    }

    #[test]
    fn interrupted_layer_is_completed_and_complete_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(dir.path(), &[Path::new("/tmp")]);
        let layer = layer(&parts[0]);
        fs::create_dir_all(&layer.upper).unwrap();
        make(&parts[0], LayerStyle::Trusted, None).unwrap();
        assert_eq!(mode(&layer.upper), mode(&layer.mount));
        // A whole one is left as it is.
        fs::set_permissions(&layer.upper, PermissionsExt::from_mode(0o700)).unwrap();
        make(&parts[0], LayerStyle::Trusted, None).unwrap();
        assert_eq!(mode(&layer.upper), 0o700);
    }
}

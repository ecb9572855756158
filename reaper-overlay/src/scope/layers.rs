//! The directories of a scope's layers, made by one process while another one mounts those that are
//! there already: half of a scope's making is the kernel's work on each.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::{
    contract::{Context, Error},
    linux::{
        file_attributes,
        files::{exists, make_dir, make_new_dir, remove_tree},
        helper::Running,
    },
    mount::mask::{self, Mask},
    store::layer_table::Layer,
};

/// A layer whose place is decided.
pub(crate) struct Placed {
    pub(crate) layer: Layer,
    /// What its mask layer hides. Empty if it has none.
    pub(crate) masks: Vec<Mask>,
}

const PURPOSE: &str = "make the layers";

/// Layers that are being made, one after another.
pub(crate) struct Layering {
    /// A byte for each layer: 1 if it could be made. The maker has let go of it. Closed first, so that nobody waits for those that are
    /// not needed any more.
    ready: Option<File>,
    making: Running<()>,
}

impl Layering {
    /// Begins to make `layers`, in their order.
    pub(crate) fn begin<'a>(layers: impl Iterator<Item = &'a Placed>) -> Result<Self, Error> {
        let (ready, report) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe to", PURPOSE)?;
        let mut report = File::from(report);
        let mut ready = Some(File::from(ready));
        let making = Running::begin(PURPOSE, || {
            // Else nobody but the maker itself would listen, and it would go on.
            drop(ready.take());
            for placed in layers {
                let made = placed.layer.make(&placed.masks);
                let told = report.write_all(&[u8::from(made.is_ok())]);
                made?;
                match told {
                    // Nobody mounts them any more.
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

impl Layer {
    /// Makes the directories; an upper layer that exists is kept.
    pub(crate) fn make(&self, masks: &[Mask]) -> Result<(), Error> {
        let is_new = make_new_dir(self.upper.parent().unwrap_or(&self.upper))?;
        // The last step, so that one that a kill cut short is taken up again.
        if is_new || !exists(&self.work)? {
            make_new_dir(&self.upper)?;
            // The root of the view is the upper layer's own directory.
            file_attributes::copy(&self.mount, &self.upper)?;
            make_new_dir(&self.work)?;
        }
        if !is_new {
            remove_tree(&self.mask)?;
        }
        if !masks.is_empty() {
            for dir in [&self.mask, &self.live_mask] {
                make_dir(dir)?;
                mask::write_layer(dir, &self.mount, masks.iter(), &mask::AS_ROOT)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::Path};

    use super::*;
    use crate::contract::Scope;
    use crate::store::layer_table::Table;
    use crate::store::paths::ScopePaths;

    fn placed(base: &Path, mounts: &[&Path]) -> Vec<Placed> {
        let paths = ScopePaths::new(base, &Scope::node());
        let mut table = Table::new();
        let place = |mount: &&Path| Placed {
            layer: table.layer(&paths, mount),
            masks: Vec::new(),
        };
        mounts.iter().map(place).collect()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_layer_is_there_when_it_is_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let layers = placed(dir.path(), &[Path::new("/"), Path::new("/tmp")]);
        let data = layers[0].layer.upper.ancestors().nth(2).unwrap();
        std::fs::create_dir_all(data).unwrap();
        let mut layering = Layering::begin(layers.iter()).unwrap();
        for Placed { layer, .. } in &layers {
            layering = layering.next().unwrap();
            assert_eq!(mode(&layer.upper), mode(&layer.mount));
            assert!(layer.work.is_dir());
        }
    }

    #[test]
    fn a_layer_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let layers = placed(dir.path(), &[Path::new("/")]);
        let layering = Layering::begin(layers.iter()).unwrap();
        let error = layering.next().map(drop).unwrap_err();
        let missing = layers[0].layer.upper.parent().unwrap();
        assert!(
            error.to_string().contains(missing.to_str().unwrap()),
            "{error}"
        );
    }

    #[test]
    fn a_layer_that_was_cut_short_is_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let layers = placed(dir.path(), &[Path::new("/tmp")]);
        let layer = &layers[0].layer;
        std::fs::create_dir_all(&layer.upper).unwrap();
        layer.make(&[]).unwrap();
        assert_eq!(mode(&layer.upper), mode(&layer.mount));
        // A whole one is left as it is.
        std::fs::set_permissions(&layer.upper, PermissionsExt::from_mode(0o700)).unwrap();
        layer.make(&[]).unwrap();
        assert_eq!(mode(&layer.upper), 0o700);
    }
}

//! Seeing and undoing what was written over the host.

use std::{io, os::unix::fs::MetadataExt, path::PathBuf};

use reaper_spec::OverlayConfig;

use super::{
    change::Change,
    commit::{self, ApplyMode},
    diff, export,
    progress::{OnProgress, Progress, Usage},
};
use crate::{
    contract::{Error, Scope},
    linux::{file_attributes, walk},
    scope::{
        list::{ScopeInfo, layers, list},
        remove::{ExclusiveScope, remove},
        unused::{Keep, collect},
    },
    store::{layer_table::Table, paths::ScopePaths},
};

/// The overlays below one base directory: listed, compared, exported, applied, emptied and removed.
///
/// Everything here works while workloads run, except for what would pull a layer from under them:
/// [`reset`](Self::reset) and [`remove`](Self::remove) are refused then, by the lock that every
/// member holds.
#[derive(Debug, Clone)]
pub struct Overlays {
    config: OverlayConfig,
}

impl Overlays {
    /// The overlays below the base that `config` names. Nothing is made by looking.
    pub fn new(config: &OverlayConfig) -> Self {
        Self {
            config: config.clone(),
        }
    }

    /// All scopes, by name.
    ///
    /// # Errors
    /// The base cannot be read.
    pub fn list(&self) -> Result<Vec<ScopeInfo>, Error> {
        list(&self.config)
    }

    /// How much `scope` holds.
    ///
    /// # Errors
    /// [`Error::ScopeNotFound`]; the layers cannot be read.
    pub fn disk_usage(&self, scope: &Scope, on_progress: OnProgress<'_>) -> Result<Usage, Error> {
        let mut usage = Usage::default();
        for layer in layers(&self.config, scope)?.1 {
            walk::walk(&layer.upper, &mut |path, metadata| {
                if file_attributes::is_placeholder_dir(path, metadata)? {
                    return Ok(());
                }
                usage.files += 1;
                usage.bytes += metadata.blocks() * 512;
                on_progress(Progress {
                    files: usage.files,
                    bytes: usage.bytes,
                    path,
                });
                Ok(())
            })?;
        }
        Ok(usage)
    }

    /// What is different in `scope` from the host, by path.
    ///
    /// A file that was only read and rewritten with the same content is no change, nor is a time.
    /// Of a directory that was deleted or replaced as a whole only the directory itself is listed.
    ///
    /// # Errors
    /// [`Error::ScopeNotFound`]; the layers or the host's files cannot be read.
    pub fn diff(&self, scope: &Scope, on_progress: OnProgress<'_>) -> Result<Vec<Change>, Error> {
        diff::diff(&layers(&self.config, scope)?.1, on_progress)
    }

    /// Writes what is different in `scope` as a tar archive. A deleted file `NAME` is an entry
    /// `.wh.NAME`, a directory that hides the host's has an entry `.wh..wh..opq`: the same as in a
    /// layer of a container image.
    ///
    /// # Errors
    /// [`Error::ScopeNotFound`]; the layers cannot be read or `out` not be written.
    pub fn export_diff<W: io::Write>(
        &self,
        scope: &Scope,
        out: W,
        on_progress: OnProgress<'_>,
    ) -> Result<W, Error> {
        export::export(&layers(&self.config, scope)?.1, out, on_progress)
    }

    /// Makes the changes at and below `paths` on the host itself, and returns them. A file appears
    /// there in one step, with its content on disk; after a crash calling it again continues.
    ///
    /// Directories that a chosen file needs are made too. What lies under a mask is refused: the
    /// view has never seen what is there.
    ///
    /// # Errors
    /// [`Error::ScopeNotFound`], [`Error::Masked`]; something cannot be written.
    pub fn apply_to_host(
        &self,
        scope: &Scope,
        paths: &[PathBuf],
        mode: ApplyMode,
        on_progress: OnProgress<'_>,
    ) -> Result<Vec<Change>, Error> {
        let changes = diff::diff(&layers(&self.config, scope)?.1, &mut |_| ())?;
        commit::commit(changes, paths, mode, on_progress)
    }

    /// Empties `scope`: its next member sees the host as it is.
    ///
    /// # Errors
    /// [`Error::ScopeNotFound`], [`Error::ScopeBusy`]; something cannot be removed.
    pub fn reset(&self, scope: &Scope) -> Result<(), Error> {
        let (base, _) = layers(&self.config, scope)?;
        let paths = ScopePaths::new(&base, scope);
        let alone = ExclusiveScope::take(scope, &paths)?;
        let trash = alone.clear(&base, &paths)?;
        crate::linux::files::make_dir(&paths.data)?;
        Table::new().write(&paths)?;
        drop(alone);
        trash.remove()
    }

    /// Removes `scope` with all that was written in it.
    ///
    /// # Errors
    /// [`Error::ScopeNotFound`], [`Error::ScopeBusy`]; something cannot be removed.
    pub fn remove(&self, scope: &Scope) -> Result<(), Error> {
        remove(&self.config, scope)
    }

    /// Removes the scopes without members that `keep` does not keep, and what a process that was
    /// killed did not get to remove; returns the scopes. Scopes of others are locked for no longer
    /// than a rename takes.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn prune(&self, keep: Keep) -> Result<Vec<Scope>, Error> {
        collect(&self.config, keep)
    }
}

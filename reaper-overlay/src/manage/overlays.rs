//! Seeing and undoing what was written over the host.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use reaper_spec::OverlayConfig;

use super::{
    change::Change,
    commit::{ApplyMode, Commits, Recovery, choose},
    diff,
    export::{self, Exported},
    progress::{OnProgress, Progress, Usage},
};
use crate::{
    contract::{Error, Scope},
    linux::{file_attributes::is_placeholder_dir, handle::Handle, walk::walk},
    scope::{
        list::{ScopeInfo, inspect, layers, list, scopes},
        remove::{ExclusiveScope, remove},
        unused::{Keep, collect},
    },
    store::{
        base::Base,
        layer_table::{Layer, Table},
        mount_points::made_for_members,
        paths::ScopePaths,
        trash,
    },
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

    /// The names of all scopes, sorted. Each can be looked at by [`inspect`](Self::inspect) then, so that
    /// one that cannot be read does not hide the others.
    ///
    /// # Errors
    /// The base cannot be read.
    pub fn scopes(&self) -> Result<Vec<Scope>, Error> {
        scopes(&self.config)
    }

    /// What is known of `scope`; `None` if there is none.
    ///
    /// # Errors
    /// Something of it cannot be read.
    pub fn inspect(&self, scope: &Scope) -> Result<Option<ScopeInfo>, Error> {
        inspect(&self.config, scope)
    }

    /// All scopes, by name.
    ///
    /// # Errors
    /// The base or one of them cannot be read.
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
            let Some(upper) = Handle::of(&layer.upper)? else {
                continue;
            };
            count(upper, &mut usage, on_progress)?;
        }
        Ok(usage)
    }

    /// How much is still on the disk of what killed processes were removing, and no process is.
    /// [`clear`](Self::clear) removes it, and so does any removal of a scope.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn left_over(&self) -> Result<Usage, Error> {
        let mut usage = Usage::default();
        if let Some(base) = Base::open(&self.config)? {
            for item in trash::left(&base.path)? {
                if let Some(item) = Handle::of(&item)? {
                    count(item, &mut usage, &mut |_| ())?;
                }
            }
        }
        Ok(usage)
    }

    /// Removes what killed processes were removing.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn clear(&self) -> Result<(), Error> {
        match Base::open(&self.config)? {
            Some(base) => trash::empty(&base.path),
            None => Ok(()),
        }
    }

    /// What is different in `scope` from the host, by path.
    ///
    /// A file that was only read and rewritten with the same content is no change, nor is a time.
    /// Of a directory that was deleted or replaced as a whole only the directory itself is listed.
    ///
    /// # Errors
    /// [`Error::ScopeNotFound`]; the layers or the host's files cannot be read.
    pub fn diff(&self, scope: &Scope, on_progress: OnProgress<'_>) -> Result<Vec<Change>, Error> {
        let (layers, mount_points) = self.layers(scope)?;
        diff::diff(&layers, &mount_points, on_progress)
    }

    /// The layers of `scope`, and the mount points in them that are in use.
    fn layers(&self, scope: &Scope) -> Result<(Vec<Layer>, Vec<PathBuf>), Error> {
        let (base, layers) = layers(&self.config, scope)?;
        Ok((layers, made_for_members(&base, scope)?))
    }

    /// Writes what is different in `scope` as a tar archive, with extended headers for what its own
    /// format has no place for: holes, fractions of seconds, extended attributes, ACLs. A deleted file `NAME` is an entry
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
    ) -> Result<Exported<W>, Error> {
        let (layers, mount_points) = self.layers(scope)?;
        export::export(&layers, &mount_points, out, on_progress)
    }

    /// Makes the changes at and below `paths` on the host itself, and returns them.
    ///
    /// All is copied to the host's filesystems and checked first; then each file appears in one step,
    /// with its content on disk. If one fails, those before it are undone; if the process is killed
    /// or the machine ends, the next call or [`recover`](Self::recover) finishes or undoes it.
    ///
    /// Directories that a chosen file needs are made too. What lies under a mask is refused: the
    /// view has never seen what is there.
    ///
    /// # Errors
    /// [`Error::ScopeNotFound`], [`Error::Masked`], [`Error::MountBelow`],
    /// [`Error::CommitBusy`]; [`Error::Changed`] if a
    /// container or another program writes to one of the files meanwhile; something cannot be written.
    pub fn apply_to_host(
        &self,
        scope: &Scope,
        paths: &[PathBuf],
        mode: ApplyMode,
        on_progress: OnProgress<'_>,
    ) -> Result<Vec<Change>, Error> {
        let (base, _) = layers(&self.config, scope)?;
        let commits = match mode {
            ApplyMode::Apply => {
                let busy = || Error::CommitBusy {
                    base: self.config.base.clone(),
                };
                Some(Commits::lock(&base)?.ok_or_else(busy)?)
            }
            ApplyMode::DryRun => None,
        };
        if let Some(commits) = &commits {
            commits.recover()?;
        }
        let chosen = choose(self.diff(scope, &mut |_| ())?, paths)?;
        if let Some(commits) = &commits {
            commits.commit(&chosen, on_progress)?;
        }
        Ok(chosen)
    }

    /// Finishes or undoes a commit that was killed or that the machine's end cut short. Says what it
    /// did, if there was one.
    ///
    /// # Errors
    /// Something cannot be read or written.
    pub fn recover(&self) -> Result<Option<Recovery>, Error> {
        match self.interrupted()? {
            Some(commits) => commits.recover(),
            None => Ok(None),
        }
    }

    /// Whether there is such a commit, which [`recover`](Self::recover) would finish or undo.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn has_interrupted_commit(&self) -> Result<bool, Error> {
        Ok(self.interrupted()?.is_some())
    }

    fn interrupted(&self) -> Result<Option<Commits>, Error> {
        match Base::open(&self.config)? {
            Some(base) => Commits::interrupted(&base),
            None => Ok(None),
        }
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

/// Adds what is below `root`, marks of Reaper's own left out.
fn count(root: Handle, usage: &mut Usage, on_progress: OnProgress<'_>) -> Result<(), Error> {
    let mut add = |path: &Path, file: &Handle| {
        if is_placeholder_dir(file)? {
            return Ok(());
        }
        usage.files += 1;
        usage.bytes += file.metadata().blocks() * 512;
        on_progress(Progress {
            files: usage.files,
            bytes: usage.bytes,
            path,
        });
        Ok(())
    };
    walk(root, &mut add)
}

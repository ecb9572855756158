//! Seeing and undoing what was written over the host.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reaper_spec::{KeepConfig, OverlayConfig};

use crate::{
    contract::{Context, Error, Scope},
    linux::{file_attributes, mountinfo::unescape, walk},
    scope::{keep::open_pin, remove::Alone},
    store::{
        base::Base,
        layer_table::{Layer, Table},
        members::members,
        paths::ScopePaths,
        trash,
    },
};

pub use crate::overlays::commit::CommitMode;
pub use {
    crate::overlays::diff::Change, crate::overlays::diff::ChangeKind, crate::overlays::diff::Entry,
    crate::overlays::diff::FileKind,
};

pub(crate) mod commit;
pub(crate) mod compare;
pub(crate) mod diff;
pub(crate) mod export;

/// The overlays below one base directory, for people and programs to look at and to clear up.
///
/// Everything here works while workloads run, except for what would pull a layer from under them:
/// [`reset`](Self::reset) and [`remove`](Self::remove) are refused then, by the lock that every
/// member holds.
#[derive(Debug, Clone)]
pub struct Overlays {
    config: OverlayConfig,
}

/// One scope, as [`Overlays::list`] shows it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScopeInfo {
    /// The scope.
    pub scope: Scope,
    /// When it was made.
    pub created: SystemTime,
    /// When a member last left; when it was made, if none has.
    pub last_used: SystemTime,
    /// Who is in it now.
    pub members: Vec<String>,
    /// Whether its mount namespace exists (one that was found again after a reboot gets it with
    /// its next member).
    pub mounted: bool,
    /// Whether workloads are kept from taking mounts of the view away.
    pub locked: bool,
    /// The mounts of the host that are shown read-only.
    pub read_only: Vec<PathBuf>,
    /// The mounts of the host that are shown as they are, where the configuration allows it.
    pub unprotected: Vec<PathBuf>,
    /// What changed on the host below the overlay since it was mounted: paths, escaped as in
    /// mountinfo.
    pub changed_below: Vec<String>,
}

/// How much a scope holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The files, directories and marks.
    pub files: u64,
    /// The space they take, in bytes.
    pub bytes: u64,
}

/// How far something is that takes long.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The files that are done.
    pub files: u64,
    /// Their content, in bytes.
    pub bytes: u64,
    /// The file that comes next.
    pub path: &'a Path,
}

/// Which unused scopes are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Those used within this time; `None` is any.
    pub age: Option<Duration>,
    /// This many, the last used ones; `None` is any number.
    pub count: Option<usize>,
}

impl From<KeepConfig> for Keep {
    fn from(KeepConfig { age, count }: KeepConfig) -> Self {
        Self { age, count }
    }
}

/// Where progress is reported to. It is called for every file.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress<'_>);

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
        let Some(base) = Base::open(&self.config)? else {
            return Ok(Vec::new());
        };
        let dir = base.path.join("scopes");
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).context("list", &dir)? {
            let name = entry.context("list", &dir)?.file_name();
            let Some(Ok(scope)) = name.to_str().map(str::parse::<Scope>) else {
                continue;
            };
            // One that is being removed is gone already.
            if let Some(info) = info(&base, scope)? {
                found.push(info);
            }
        }
        found.sort_by(|a, b| a.scope.cmp(&b.scope));
        Ok(found)
    }

    /// How much `scope` holds.
    ///
    /// # Errors
    /// [`Error::NoScope`]; the layers cannot be read.
    pub fn usage(&self, scope: &Scope, on_progress: OnProgress<'_>) -> Result<Usage, Error> {
        let mut usage = Usage::default();
        for layer in self.layers(scope)?.1 {
            walk::walk(&layer.upper, &mut |path, metadata| {
                if file_attributes::is_made(path, metadata)? {
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
    /// [`Error::NoScope`]; the layers or the host's files cannot be read.
    pub fn diff(&self, scope: &Scope, on_progress: OnProgress<'_>) -> Result<Vec<Change>, Error> {
        diff::diff(&self.layers(scope)?.1, on_progress)
    }

    /// Writes what is different in `scope` as a tar archive. A deleted file `NAME` is an entry
    /// `.wh.NAME`, a directory that hides the host's has an entry `.wh..wh..opq`: the same as in a
    /// layer of a container image.
    ///
    /// # Errors
    /// [`Error::NoScope`]; the layers cannot be read or `out` not be written.
    pub fn export<W: io::Write>(
        &self,
        scope: &Scope,
        out: W,
        on_progress: OnProgress<'_>,
    ) -> Result<W, Error> {
        export::export(&self.layers(scope)?.1, out, on_progress)
    }

    /// Makes the changes at and below `paths` on the host itself, and returns them. A file appears
    /// there in one step, with its content on disk; after a crash calling it again continues.
    ///
    /// Directories that a chosen file needs are made too. What lies under a mask is refused: the
    /// view has never seen what is there.
    ///
    /// # Errors
    /// [`Error::NoScope`], [`Error::Masked`]; something cannot be written.
    pub fn commit(
        &self,
        scope: &Scope,
        paths: &[PathBuf],
        mode: CommitMode,
        on_progress: OnProgress<'_>,
    ) -> Result<Vec<Change>, Error> {
        let changes = diff::diff(&self.layers(scope)?.1, &mut |_| ())?;
        commit::commit(changes, paths, mode, on_progress)
    }

    /// Empties `scope`: its next member sees the host as it is.
    ///
    /// # Errors
    /// [`Error::NoScope`], [`Error::InUse`]; something cannot be removed.
    pub fn reset(&self, scope: &Scope) -> Result<(), Error> {
        let (base, _) = self.layers(scope)?;
        let paths = ScopePaths::new(&base.path, scope);
        let alone = Alone::take(scope, &paths)?;
        let trash = alone.clear(&base, &paths)?;
        crate::linux::files::make_dir(&paths.data)?;
        Table::new().write(&paths)?;
        drop(alone);
        trash.remove()
    }

    /// Removes `scope` with all that was written in it.
    ///
    /// # Errors
    /// [`Error::NoScope`], [`Error::InUse`]; something cannot be removed.
    pub fn remove(&self, scope: &Scope) -> Result<(), Error> {
        let (base, _) = self.layers(scope)?;
        let paths = ScopePaths::new(&base.path, scope);
        let alone = Alone::take(scope, &paths)?;
        alone.remove(&base, &paths)
    }

    /// Removes the scopes that nobody uses and `keep` does not keep, and what a process that was
    /// killed did not get to remove; returns the scopes. Scopes of others are locked for no longer
    /// than a rename takes.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn collect(&self, keep: Keep) -> Result<Vec<Scope>, Error> {
        if let Some(base) = Base::open(&self.config)? {
            trash::empty(&base.path)?;
        }
        let mut unused: Vec<_> = self
            .list()?
            .into_iter()
            .filter(|info| info.members.is_empty())
            .collect();
        unused.sort_by_key(|info| std::cmp::Reverse(info.last_used));
        let mut removed = Vec::new();
        for (at, info) in unused.into_iter().enumerate() {
            let age = info.last_used.elapsed().unwrap_or_default();
            let too_old = keep.age.is_some_and(|limit| age > limit);
            let too_many = keep.count.is_some_and(|count| at >= count);
            if !too_old && !too_many {
                continue;
            }
            match self.remove(&info.scope) {
                Ok(()) => removed.push(info.scope),
                // Somebody came or was quicker.
                Err(Error::InUse { .. } | Error::NoScope { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// The base, ready, and the scope's layers.
    fn layers(&self, scope: &Scope) -> Result<(Base, Vec<Layer>), Error> {
        let missing = || Error::NoScope {
            name: scope.to_string(),
        };
        if Base::open(&self.config)?.is_none() {
            return Err(missing());
        }
        let base = Base::prepare(&self.config)?;
        let paths = ScopePaths::new(&base.path, scope);
        let table = Table::read(&paths)?.ok_or_else(missing)?;
        let layers = table.layers(&paths);
        Ok((base, layers))
    }
}

fn info(base: &Base, scope: Scope) -> Result<Option<ScopeInfo>, Error> {
    let paths = ScopePaths::new(&base.path, &scope);
    let Some(table) = Table::read(&paths)? else {
        return Ok(None);
    };
    let created = UNIX_EPOCH + Duration::from_secs(table.created);
    let last_used = fs::metadata(paths.layers()).and_then(|metadata| metadata.modified());
    let members = members(&paths)?;
    // Without root there is no pin: members alone keep the namespace.
    let mounted = !members.is_empty() || open_pin(&paths)?.is_some();
    let changed_below = if mounted {
        table.stamps.changed()
    } else {
        Vec::new()
    };
    Ok(Some(ScopeInfo {
        created,
        last_used: last_used.unwrap_or(created),
        members,
        mounted,
        locked: table.locked,
        read_only: paths_of(&table.read_only),
        unprotected: paths_of(&table.unprotected),
        changed_below,
        scope,
    }))
}

fn paths_of(escaped: &[String]) -> Vec<PathBuf> {
    let path = |path: &String| unescape(path.as_bytes()).into();
    escaped.iter().map(path).collect()
}

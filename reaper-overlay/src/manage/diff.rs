//! Comparing the layers of a scope with the host.
//!
//! Contents are compared, and times are not: overlay copies a file up when it is opened for
//! writing, so an upper layer has files that no container has changed. A directory that is marked
//! as opaque hides the host's, so what it lacks is deleted. A directory that Reaper made in an
//! ordinary user's layer, to make room for new files, is no change, and neither is a mount point in use
//! that was made for a volume.

use std::{
    ffi::OsStr,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    change::{Change, ChangeKind, FileMetadata, Lower, Stamp},
    compare::{same_attributes, same_content},
    progress::{OnProgress, Progress},
};
use crate::{
    contract::{Context, Error},
    linux::{
        file_attributes::{is_opaque, is_placeholder_dir, is_whiteout},
        handle::Handle,
        resolve::without_links,
        walk::{Cursor, Visitor, joined, walk},
    },
    store::layer_table::Layer,
};

/// What lies below the upper layer at one path.
#[derive(Debug, Default)]
struct Below {
    host: Option<Handle>,
    mask: Option<Handle>,
    /// Whether the host's is hidden here.
    masked: bool,
    /// Whether the upper layer shows nothing of what lies below: it or a directory above it is
    /// opaque. Overlayfs marks the topmost one alone.
    replaced: bool,
}

impl Below {
    /// The file that the view shows without an upper layer.
    fn shown(&self) -> Option<&Handle> {
        match self.lower() {
            Lower::Host => self.host.as_ref(),
            Lower::Mask => self.mask.as_ref(),
            Lower::Nothing => None,
        }
    }

    fn lower(&self) -> Lower {
        match self {
            Self { host: Some(_), .. } => Lower::Host,
            // A directory of the mask, through which the host's is seen, is none without it.
            Self {
                mask: Some(_),
                masked: true,
                ..
            } => Lower::Mask,
            _ => Lower::Nothing,
        }
    }
}

/// What lies below in one directory on the way of a walk.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// Whether the cursors are there.
    host: bool,
    mask: bool,
    masked: bool,
    replaced: bool,
}

struct Diff<'a, 'b> {
    layers: &'a [Layer],
    on_progress: OnProgress<'b>,
    /// The layer of the walk, and where the walk is in what lies below it.
    layer: Arc<Layer>,
    host: Option<Cursor>,
    mask: Option<Cursor>,
    levels: Vec<Level>,
    changes: Vec<Change>,
    files: u64,
    bytes: u64,
}

/// What is different in `layers` from the host, by path. `mount_points` are those in use that were
/// made for volumes.
pub(crate) fn diff(
    layers: &[Layer],
    mount_points: &[PathBuf],
    on_progress: OnProgress<'_>,
) -> Result<Vec<Change>, Error> {
    let Some(first) = layers.first() else {
        return Ok(Vec::new());
    };
    let mut diff = Diff {
        layers,
        on_progress,
        layer: Arc::new(first.clone()),
        host: None,
        mask: None,
        levels: Vec::new(),
        changes: Vec::new(),
        files: 0,
        bytes: 0,
    };
    for layer in layers {
        let Some(upper) = Handle::of(&layer.upper)? else {
            continue;
        };
        diff.layer = Arc::new(layer.clone());
        let below = Below {
            host: without_links(&layer.mount)?,
            mask: layer.written_mask().map(Handle::of).transpose()?.flatten(),
            ..Below::default()
        };
        // The layer's own directory is the mount's root in the view.
        if let Some(host) = below.host.as_ref().filter(|host| host.is_dir())
            && !is_placeholder_dir(&upper)?
            && !same_attributes(host, &upper)?
        {
            diff.add(
                ChangeKind::AttributesChanged,
                Path::new(""),
                &below,
                Some(&upper),
            );
        }
        diff.levels = vec![Level {
            host: below.host.is_some(),
            mask: below.mask.is_some(),
            masked: false,
            replaced: false,
        }];
        diff.host = below.host.map(Cursor::new);
        diff.mask = below.mask.map(Cursor::new);
        walk(upper, &mut diff)?;
    }
    let mut changes = diff.changes;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    leave_out(&mut changes, mount_points);
    Ok(changes)
}

/// Leaves out the mount points, unless something was added below them.
fn leave_out(changes: &mut Vec<Change>, mount_points: &[PathBuf]) {
    let mut needed: Option<PathBuf> = None;
    let mut at = changes.len();
    while let Some(before) = at.checked_sub(1) {
        at = before;
        let Change { path, kind, .. } = &changes[at];
        let is_needed = |needed: &PathBuf| needed.starts_with(path);
        if *kind == ChangeKind::Added
            && mount_points.contains(path)
            && !needed.as_ref().is_some_and(is_needed)
        {
            changes.remove(at);
        } else {
            needed = Some(path.clone());
        }
    }
}

impl Visitor for Diff<'_, '_> {
    fn visit(&mut self, path: &Path, upper: &Handle) -> Result<bool, Error> {
        self.files += 1;
        let full = joined(&self.layer.mount, path);
        (self.on_progress)(Progress {
            files: self.files,
            bytes: self.bytes,
            path: &full,
        });
        // Another filesystem is mounted there: its layer says what changed.
        if self.layers.iter().any(|layer| layer.mount == full) {
            return Ok(false);
        }
        let name = path.file_name().unwrap_or_default();
        let below = match self.levels.last() {
            Some(level) => {
                let host = self.host.as_ref().filter(|_| level.host).map(Cursor::dir);
                let mask = self.mask.as_ref().filter(|_| level.mask).map(Cursor::dir);
                child(host, mask, level.masked, level.replaced, name)?
            }
            None => Below::default(),
        };
        let Some(below) = self.compare(path, upper, below)? else {
            return Ok(false);
        };
        self.levels.push(Level {
            host: below.host.is_some(),
            mask: below.mask.is_some(),
            masked: below.masked,
            replaced: below.replaced,
        });
        for (cursor, dir) in [(&mut self.host, below.host), (&mut self.mask, below.mask)] {
            if let (Some(cursor), Some(dir)) = (cursor, dir) {
                cursor.enter(name, dir);
            }
        }
        Ok(true)
    }

    fn leave(&mut self) -> Result<(), Error> {
        let Some(left) = self.levels.pop() else {
            return Ok(());
        };
        let cursors = [(left.host, &mut self.host), (left.mask, &mut self.mask)];
        for (was_there, cursor) in cursors {
            if let Some(cursor) = cursor.as_mut().filter(|_| was_there) {
                let left = cursor.leave();
                if !left.with_context("go back to", || cursor.path())? {
                    return Err(moved()).with_context("go back to", || cursor.path());
                }
            }
        }
        Ok(())
    }

    fn lost(&mut self, path: &Path) -> Result<(), Error> {
        Err(moved()).context("compare", self.layer.mount.join(path))
    }
}

fn moved() -> io::Error {
    io::Error::other("a directory above it was moved meanwhile: try again")
}

/// The entry `name` of `dir`, if that is a directory.
fn at(dir: Option<&Handle>, name: &OsStr) -> Result<Option<Handle>, Error> {
    match dir.filter(|dir| dir.is_dir()) {
        Some(dir) => Handle::at(dir.as_fd(), name).with_context("open", || dir.path().join(name)),
        None => Ok(None),
    }
}

/// What lies below at the entry `name` of a directory, of which these are the host's and the mask's.
fn child(
    host: Option<&Handle>,
    mask: Option<&Handle>,
    masked: bool,
    replaced: bool,
    name: &OsStr,
) -> Result<Below, Error> {
    let mask = at(mask, name)?;
    let hides = match &mask {
        Some(mask) => is_whiteout(mask.metadata()) || !mask.is_dir() || is_opaque(mask)?,
        None => false,
    };
    if hides {
        return Ok(Below {
            host: None,
            mask: mask.filter(|mask| !is_whiteout(mask.metadata())),
            masked: true,
            replaced,
        });
    }
    Ok(Below {
        host: at(host, name)?,
        mask,
        masked,
        replaced,
    })
}

impl Diff<'_, '_> {
    /// Compares one entry. If it is a directory, what its entries are to be compared with.
    fn compare(
        &mut self,
        path: &Path,
        upper: &Handle,
        mut below: Below,
    ) -> Result<Option<Below>, Error> {
        let nothing = |below: &Below| Below {
            masked: below.masked,
            ..Below::default()
        };
        if is_whiteout(upper.metadata()) {
            if below.shown().is_some() {
                self.add(ChangeKind::Deleted, path, &below, None);
            }
            return Ok(None);
        }
        self.bytes += upper.metadata().len();
        let Some(before) = below.shown() else {
            // The host's, which this one replaces, has been removed.
            if is_placeholder_dir(upper)? {
                return Ok(Some(nothing(&below)));
            }
            self.add(ChangeKind::Added, path, &below, Some(upper));
            return Ok(upper.is_dir().then(|| nothing(&below)));
        };
        if before.metadata().file_type() != upper.metadata().file_type() {
            self.add(ChangeKind::TypeChanged, path, &below, Some(upper));
            return Ok(upper.is_dir().then(|| nothing(&below)));
        }
        if !same_content(before, upper)? {
            self.add(ChangeKind::Modified, path, &below, Some(upper));
        } else if !same_attributes(before, upper)? {
            self.add(ChangeKind::AttributesChanged, path, &below, Some(upper));
        }
        if !upper.is_dir() {
            return Ok(None);
        }
        below.replaced = below.replaced || is_opaque(upper)?;
        if below.replaced {
            self.deleted_behind(path, upper, &below)?;
        }
        Ok(Some(below))
    }

    /// What an opaque directory hides and has not made anew is deleted.
    fn deleted_behind(&mut self, path: &Path, upper: &Handle, below: &Below) -> Result<(), Error> {
        let Some(host) = &below.host else {
            return Ok(());
        };
        for name in host.names().with_context("list", || host.path())? {
            if at(Some(upper), &name)?.is_some() {
                continue;
            }
            let mask = below.mask.as_ref();
            let gone = child(Some(host), mask, below.masked, below.replaced, &name)?;
            if gone.shown().is_some() {
                self.add(ChangeKind::Deleted, &path.join(name), &gone, None);
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: ChangeKind, path: &Path, below: &Below, after: Option<&Handle>) {
        let before = below.shown().map(Handle::metadata);
        let after = after.map(Handle::metadata);
        self.changes.push(Change {
            path: joined(&self.layer.mount, path),
            kind,
            before: before.map(FileMetadata::of),
            after: after.map(FileMetadata::of),
            masked: below.masked,
            layer: Arc::clone(&self.layer),
            lower: below.lower(),
            stamps: [before.map(Stamp::of), after.map(Stamp::of)],
        });
    }
}

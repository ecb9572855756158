//! Comparing the layers of a scope with the host.
//!
//! Contents are compared, and times are not: overlay copies a file up when it is opened for
//! writing, so an upper layer has files that no container has changed. A directory that is marked
//! as opaque hides the host's, so what it lacks is deleted. A directory that Reaper made in an
//! ordinary user's layer, to make room for new files, is no change.

use std::{
    ffi::OsStr,
    fs::Metadata,
    path::{Path, PathBuf},
};

use super::{
    change::{Change, ChangeKind, Entry},
    compare::{same_attributes, same_content},
    progress::{OnProgress, Progress},
};
use crate::{
    contract::Error,
    linux::{file_attributes, walk},
    store::layer_table::Layer,
};

/// What lies below the upper layer at one path.
#[derive(Debug, Clone, Default)]
struct Lower {
    host: Option<PathBuf>,
    mask: Option<PathBuf>,
    /// Whether the host's is hidden here.
    masked: bool,
    /// Whether the upper layer shows nothing of what lies below: it or a directory above it is
    /// opaque. Overlayfs marks the topmost one alone.
    replaced: bool,
}

impl Lower {
    /// What lies below at the entry `name`.
    fn child(&self, name: &OsStr) -> Result<Self, Error> {
        let host = self.host.as_ref().map(|dir| dir.join(name));
        let mask = self.mask.as_ref().map(|dir| dir.join(name));
        let masked = Self {
            host: None,
            mask: None,
            masked: true,
            replaced: self.replaced,
        };
        if let Some(mask) = mask
            && let Some(metadata) = walk::look(&mask)?
        {
            if file_attributes::is_whiteout(&metadata) {
                return Ok(masked);
            }
            if !metadata.is_dir() || file_attributes::is_opaque(&mask)? {
                return Ok(Self {
                    mask: Some(mask),
                    ..masked
                });
            }
            return Ok(Self {
                host,
                mask: Some(mask),
                masked: self.masked,
                replaced: self.replaced,
            });
        }
        let host = match host {
            Some(path) => walk::look(&path)?.map(|_| path),
            None => None,
        };
        Ok(Self {
            host,
            mask: None,
            masked: self.masked,
            replaced: self.replaced,
        })
    }

    /// The file that the view shows without an upper layer.
    fn shown(&self) -> Option<&PathBuf> {
        self.host.as_ref().or(self.mask.as_ref())
    }

    /// Nothing, in a directory that hides what is below.
    fn nothing(&self) -> Self {
        Self {
            masked: self.masked,
            ..Self::default()
        }
    }
}

struct Diff<'a> {
    layers: &'a [Layer],
    changes: Vec<Change>,
    files: u64,
    bytes: u64,
}

pub(crate) fn diff(layers: &[Layer], on_progress: OnProgress<'_>) -> Result<Vec<Change>, Error> {
    let mut diff = Diff {
        layers,
        changes: Vec::new(),
        files: 0,
        bytes: 0,
    };
    for layer in layers {
        let mask = layer.written_mask().map(Path::to_owned);
        let lower = Lower {
            host: Some(layer.mount.clone()),
            mask,
            ..Lower::default()
        };
        // An own stack: the depth is up to workloads.
        let mut todo = vec![(layer.upper.clone(), layer.mount.clone(), lower)];
        while let Some((dir, path, lower)) = todo.pop() {
            for upper in walk::children(&dir)? {
                let name = upper.file_name().unwrap_or_default();
                let path = path.join(name);
                diff.files += 1;
                on_progress(Progress {
                    files: diff.files,
                    bytes: diff.bytes,
                    path: &path,
                });
                let lower = lower.child(name)?;
                if let Some(lower) = diff.compare(&upper, &path, lower)? {
                    todo.push((upper, path, lower));
                }
            }
        }
    }
    diff.changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(diff.changes)
}

impl Diff<'_> {
    /// Compares one entry. If it is a directory, what its entries are to be compared with.
    fn compare(
        &mut self,
        upper: &Path,
        path: &Path,
        mut lower: Lower,
    ) -> Result<Option<Lower>, Error> {
        // Another filesystem is mounted there: its layer says what changed.
        if self.layers.iter().any(|layer| layer.mount == path) {
            return Ok(None);
        }
        let Some(after) = walk::look(upper)? else {
            return Ok(None);
        };
        let below = lower.shown().cloned();
        let before = match &below {
            Some(below) => walk::look(below)?,
            None => None,
        };
        if file_attributes::is_whiteout(&after) {
            if let Some(before) = before {
                self.add(ChangeKind::Deleted, path, &lower, Some(&before), None);
            }
            return Ok(None);
        }
        self.bytes += after.len();
        let sides = (before.as_ref(), Some((upper, &after)));
        let Some(before) = before.as_ref() else {
            // The host's, which this one stands for, has gone.
            if file_attributes::is_placeholder_dir(upper, &after)? {
                return Ok(Some(lower.nothing()));
            }
            self.add(ChangeKind::Added, path, &lower, sides.0, sides.1);
            return Ok(after.is_dir().then(|| lower.nothing()));
        };
        if before.file_type() != after.file_type() {
            self.add(ChangeKind::Type, path, &lower, sides.0, sides.1);
            return Ok(after.is_dir().then(|| lower.nothing()));
        }
        let below = below.unwrap_or_default();
        if !same_content(&below, before, upper, &after)? {
            self.add(ChangeKind::Modified, path, &lower, sides.0, sides.1);
        } else if !same_attributes(&below, before, upper, &after)? {
            self.add(ChangeKind::Attributes, path, &lower, sides.0, sides.1);
        }
        if !after.is_dir() {
            return Ok(None);
        }
        lower.replaced = lower.replaced || file_attributes::is_opaque(upper)?;
        if lower.replaced {
            self.deleted_behind(upper, path, &lower)?;
        }
        Ok(Some(lower))
    }

    /// What an opaque directory hides and has not made anew is deleted.
    fn deleted_behind(&mut self, upper: &Path, path: &Path, lower: &Lower) -> Result<(), Error> {
        let Some(host) = &lower.host else {
            return Ok(());
        };
        for child in walk::children(host)? {
            let name = child.file_name().unwrap_or_default();
            let below = lower.child(name)?;
            if walk::look(&upper.join(name))?.is_some() {
                continue;
            }
            if let Some(shown) = below.shown()
                && let Some(before) = walk::look(shown)?
            {
                self.add(
                    ChangeKind::Deleted,
                    &path.join(name),
                    &below,
                    Some(&before),
                    None,
                );
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        kind: ChangeKind,
        path: &Path,
        lower: &Lower,
        before: Option<&Metadata>,
        after: Option<(&Path, &Metadata)>,
    ) {
        self.changes.push(Change {
            path: path.to_owned(),
            kind,
            before: before.map(Entry::of),
            after: after.map(|(_, metadata)| Entry::of(metadata)),
            masked: lower.masked,
            lower: lower.shown().cloned(),
            upper: after.map(|(upper, _)| upper.to_owned()),
        });
    }
}

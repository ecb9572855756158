//! The files of a change, found anew: what was compared before may have been swapped since.

use std::sync::Arc;

use super::change::{Change, Lower, Stamp, changed};
use crate::{
    contract::Error,
    linux::{handle::Handle, resolve::without_links, walk::Cursor},
    store::layer_table::Layer,
};

/// Whether a file is still what was compared. Of a directory another time says only that it has
/// other entries now.
fn is_same(was: Option<Stamp>, file: &Handle) -> bool {
    let now = Stamp::of(file.metadata());
    was.is_some_and(|was| {
        if file.is_dir() {
            was.is_same_file(&now)
        } else {
            was == now
        }
    })
}

/// A cursor in the layer that was used last: changes come layer by layer.
struct Found {
    root: fn(&Layer) -> Result<Option<Handle>, Error>,
    open: Option<(Arc<Layer>, Cursor)>,
}

impl Found {
    fn new(root: fn(&Layer) -> Result<Option<Handle>, Error>) -> Self {
        Self { root, open: None }
    }

    fn cursor(&mut self, change: &Change) -> Result<&mut Cursor, Error> {
        let layer = &change.layer;
        let is_open = |(open, _): &(Arc<Layer>, Cursor)| Arc::ptr_eq(open, layer);
        if !self.open.as_ref().is_some_and(is_open) {
            let root = (self.root)(layer)?;
            self.open = root.map(|root| (Arc::clone(layer), Cursor::new(root)));
        }
        match &mut self.open {
            Some((_, cursor)) => Ok(cursor),
            None => Err(changed(&change.path)),
        }
    }
}

/// The files of upper layers, found anew.
pub(super) struct UpperFiles(Found);

impl UpperFiles {
    pub(super) fn new() -> Self {
        Self(Found::new(|layer| Handle::of(&layer.upper)))
    }

    /// What the upper layer has for `change`, if it is as it was.
    pub(super) fn unchanged(&mut self, change: &Change) -> Result<Handle, Error> {
        let file = self.0.cursor(change)?.find(change.relative())?;
        file.filter(|file| is_same(change.stamps[1], file))
            .ok_or_else(|| changed(&change.path))
    }
}

/// The host's files, found anew.
pub(super) struct HostFiles(Found);

impl HostFiles {
    pub(super) fn new() -> Self {
        Self(Found::new(|layer| without_links(&layer.mount)))
    }

    /// What the host has for `change`, if it is as it was when it was compared.
    pub(super) fn unchanged(&mut self, change: &Change) -> Result<Option<Handle>, Error> {
        let found = self.0.cursor(change)?.find(change.relative())?;
        let is_as_it_was = match (&found, change.lower) {
            (Some(found), Lower::Host) => is_same(change.stamps[0], found),
            (None, Lower::Nothing) => true,
            _ => false,
        };
        if is_as_it_was {
            Ok(found)
        } else {
            Err(changed(&change.path))
        }
    }

    /// Fails if the place of `change` is not on the mount of its staging directory.
    pub(super) fn check_mount(&mut self, change: &Change, staging: &Handle) -> Result<(), Error> {
        let cursor = self.0.cursor(change)?;
        if !cursor.go_to_parent(change.relative())? {
            return Err(changed(&change.path));
        }
        if cursor.dir().shares_mount(staging) {
            return Ok(());
        }
        Err(Error::MountBelow {
            path: change.layer.mount.clone(),
            mount: cursor.dir().path(),
        })
    }
}

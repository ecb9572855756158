//! The files of a change, found anew: what was compared before may have been swapped since.

use std::sync::Arc;

use super::change::{Change, Lower, Stamp};
use crate::{
    contract::Error,
    linux::{handle::Handle, resolve::without_links, walk::Cursor},
    store::layer_table::Layer,
};

pub(super) fn changed(change: &Change) -> Error {
    Error::Changed {
        path: change.path.clone(),
    }
}

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

/// The files of upper layers, found anew.
#[derive(Default)]
pub(super) struct UpperFiles {
    open: Option<(Arc<Layer>, Cursor)>,
}

impl UpperFiles {
    /// What the upper layer has for `change`, if it is as it was.
    pub(super) fn unchanged(&mut self, change: &Change) -> Result<Handle, Error> {
        let layer = &change.layer;
        if self
            .open
            .as_ref()
            .is_none_or(|(open, _)| !Arc::ptr_eq(open, layer))
        {
            let root = Handle::of(&layer.upper)?;
            self.open = root.map(|root| (Arc::clone(layer), Cursor::new(root)));
        }
        let file = match &mut self.open {
            Some((_, cursor)) => cursor.find(change.relative())?,
            None => None,
        };
        file.filter(|file| is_same(change.stamps[1], file))
            .ok_or_else(|| changed(change))
    }
}

/// The host's files, found anew.
#[derive(Default)]
pub(super) struct HostFiles {
    open: Option<(Arc<Layer>, Cursor)>,
}

impl HostFiles {
    fn cursor(&mut self, change: &Change) -> Result<&mut Cursor, Error> {
        let layer = &change.layer;
        if self
            .open
            .as_ref()
            .is_none_or(|(open, _)| !Arc::ptr_eq(open, layer))
        {
            let root = without_links(&layer.mount)?;
            self.open = root.map(|root| (Arc::clone(layer), Cursor::new(root)));
        }
        match &mut self.open {
            Some((_, cursor)) => Ok(cursor),
            None => Err(changed(change)),
        }
    }

    /// What the host has for `change`, if it is as it was when it was compared.
    pub(super) fn unchanged(&mut self, change: &Change) -> Result<Option<Handle>, Error> {
        let found = self.cursor(change)?.find(change.relative())?;
        let is_as_it_was = match (&found, change.lower) {
            (Some(found), Lower::Host) => is_same(change.stamps[0], found),
            (None, Lower::Nothing) => true,
            _ => false,
        };
        if is_as_it_was {
            Ok(found)
        } else {
            Err(changed(change))
        }
    }

    /// The same, and there is a directory to put it in, unless that is made by the same commit.
    pub(super) fn check(&mut self, change: &Change) -> Result<(), Error> {
        self.unchanged(change).map(drop)
    }

    /// Fails if the place of `change` is not on the mount of its staging directory.
    pub(super) fn check_mount(&mut self, change: &Change, staging: &Handle) -> Result<(), Error> {
        let cursor = self.cursor(change)?;
        if !cursor.go_to_parent(change.relative())? {
            return Err(changed(change));
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

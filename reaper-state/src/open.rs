//! The store that a configuration names.

use std::sync::Arc;

use reaper_spec::StoreKind;

use crate::{Error, FileStore, StateRoot, StateStore};

/// The store of this kind for the containers below `root`: [`FileStore`] in the root itself, or
/// `SqliteStore` (feature `sqlite`) in [`StateRoot::database`]. Nothing is read or made before it is
/// needed.
///
/// ```
/// use reaper_spec::StoreKind;
/// use reaper_state::{StateRoot, StateStore};
///
/// # fn main() -> Result<(), reaper_state::Error> {
/// # let folder = tempfile::tempdir().unwrap();
/// let store = reaper_state::open(StoreKind::File, &StateRoot::new(folder.path()))?;
/// assert_eq!(store.list()?, []);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::FeatureDisabled`] for a store whose feature is off.
pub fn open(kind: StoreKind, root: &StateRoot) -> Result<Arc<dyn StateStore>, Error> {
    match kind {
        StoreKind::File => Ok(Arc::new(FileStore::new(root.clone()))),
        #[cfg(feature = "sqlite")]
        StoreKind::Sqlite => Ok(Arc::new(crate::SqliteStore::new(root.database()))),
        kind => Err(Error::FeatureDisabled { kind }),
    }
}

//! Our stores keep the contract that we publish.

use reaper_state::{FileStore, MemoryStore, RootDir, conformance::Subject};

fn files() -> Subject {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = RootDir::new(folder.path().join("not/there/yet"));
    Subject::shared(move || FileStore::new(root.clone())).keeping(folder)
}

mod file {
    reaper_state::state_store_conformance!(super::files);
}

mod memory {
    use super::*;
    reaper_state::state_store_conformance!(|| Subject::new(MemoryStore::new()));
}

mod dynamic {
    use super::*;
    use reaper_state::StateStore;
    use std::sync::Arc;
    reaper_state::state_store_conformance!(|| {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        Subject::new(store)
    });
}

//! Our stores keep the contract that we publish.

use reaper_state::{FileStore, MemoryStore, SqliteStore, StateRoot, conformance::Subject};

fn files() -> Subject {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = StateRoot::new(folder.path().join("not/there/yet"));
    Subject::shared(move || FileStore::new(root.clone())).keeping(folder)
}

mod file {
    reaper_state::state_store_conformance!(super::files);
}

fn database() -> Subject {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("not/there/yet/state.db");
    Subject::shared(move || SqliteStore::new(&path)).keeping(folder)
}

mod sqlite {
    reaper_state::state_store_conformance!(super::database);
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

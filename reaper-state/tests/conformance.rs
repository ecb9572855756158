//! Our stores keep the contract that we publish.

use std::fs;

use reaper_state::{FileStore, MemoryStore, SqliteStore, StateRoot, conformance::Subject};
use rusqlite::Connection;

/// What a later version may write.
const NEWER: &str = r#"{"version": 99, "id": {"new": true}}"#;

fn files() -> Subject {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = StateRoot::new(folder.path().join("not/there/yet"));
    let neighbor = StateRoot::new(folder.path().join("not/there/other"));
    let newer = root.clone();
    Subject::shared(move || FileStore::new(root.clone()))
        .with_newer(move |id| {
            fs::write(newer.container(id).state_file(), NEWER).expect("write");
        })
        .with_neighbor(move || FileStore::new(neighbor.clone()))
        .keeping(folder)
}

mod file {
    reaper_state::state_store_conformance!(super::files);
}

fn database() -> Subject {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("not/there/yet/state.db");
    let (newer, neighbor) = (path.clone(), folder.path().join("other.db"));
    Subject::shared(move || SqliteStore::new(&path))
        .with_newer(move |id| {
            let update = "UPDATE record SET document = ?1 WHERE id = ?2";
            let tool = Connection::open(&newer).expect("open");
            tool.execute(update, [NEWER, id.as_str()]).expect("update");
        })
        .with_neighbor(move || SqliteStore::new(&neighbor))
        .keeping(folder)
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

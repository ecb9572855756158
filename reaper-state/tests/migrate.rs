//! Moving a store while containers run.

use std::thread;

use reaper_spec::{ContainerId, Status};
use reaper_state::{
    Call, Error, FakeStore, FileStore, Hold, MemoryStore, Record, Revision, ScriptedResult,
    SqliteStore, StateRoot, StateStore, migrate,
};

fn id(text: &str) -> ContainerId {
    ContainerId::new(text).expect("an id")
}

fn record(name: &str, status: Status) -> Record {
    let mut record = Record::new(id(name), "/bundle".into());
    record.status = status;
    record
}

fn put(store: &dyn StateStore, record: &Record) -> Revision {
    store.create(record).expect("create")
}

#[test]
fn records_move_from_files_to_sqlite_and_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = FileStore::new(StateRoot::new(folder.path().join("files")));
    let sqlite = SqliteStore::new(folder.path().join("state.db"));
    let back = MemoryStore::new();
    let records = Status::ALL.map(|status| record(status.as_str(), status));
    for record in &records {
        put(&files, record);
    }

    let migration = migrate(&files, &sqlite).expect("migrate");
    assert_eq!(migration.copied, files.list().expect("list"));
    migrate(&sqlite, &back).expect("migrate");
    for record in &records {
        assert_eq!(back.get(&record.id).expect("get").record, *record);
        assert_eq!(
            files.get(&record.id).expect("the source stays").record,
            *record
        );
    }
    let again = migrate(&files, &sqlite).expect("migrate");
    assert_eq!((again.copied, again.kept.len()), (vec![], records.len()));
}

#[test]
fn repeated_migration_updates_but_never_reverts_records() {
    let (from, to) = (MemoryStore::new(), MemoryStore::new());
    let mut stale = record("stale", Status::Running);
    let mut ahead = record("ahead", Status::Running);
    let revision = put(&from, &stale);
    put(&from, &ahead);
    migrate(&from, &to).expect("migrate");
    stale.status = Status::Stopped;
    from.update(&revision, &stale).expect("the source goes on");
    ahead.status = Status::Stopped;
    let current = to.get(&ahead.id).expect("get").revision;
    to.update(&current, &ahead).expect("the target goes on");

    let migration = migrate(&from, &to).expect("migrate");
    assert_eq!(
        (migration.copied, migration.kept),
        (vec![id("stale")], vec![id("ahead")])
    );
    for name in ["stale", "ahead"] {
        assert_eq!(
            to.get(&id(name)).expect("get").record.status,
            Status::Stopped,
            "{name}"
        );
    }
}

#[test]
fn another_container_of_the_same_id_is_reported() {
    let (from, to) = (MemoryStore::new(), MemoryStore::new());
    let theirs = record("web", Status::Creating);
    put(&to, &theirs);
    let mut ours = record("web", Status::Stopped);
    ours.bundle = "/another".into();
    put(&from, &ours);
    let migration = migrate(&from, &to).expect("migrate");
    assert!(
        matches!(&migration.failed[..], [(name, Error::AlreadyExists { .. })] if *name == ours.id)
    );
    assert_eq!(to.get(&theirs.id).expect("get").record, theirs);
}

#[test]
fn an_unreadable_record_is_reported_and_the_others_are_copied() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = FileStore::new(StateRoot::new(folder.path()));
    let to = MemoryStore::new();
    put(&from, &record("a-bad", Status::Running));
    put(&from, &record("good", Status::Running));
    std::fs::write(folder.path().join("a-bad/state.json"), "").expect("write");
    let migration = migrate(&from, &to).expect("migrate");
    assert!(
        matches!(&migration.failed[..], [(_, Error::Corrupt { .. })]),
        "{migration:?}"
    );
    assert_eq!(to.list().expect("list"), [id("good")]);
}

/// Has `change` happen to the source when its container has been written to the target.
fn while_it_is_copied(change: impl FnOnce(&dyn StateStore, &Revision, Record)) -> FakeStore {
    let from = MemoryStore::new();
    let to = FakeStore::new();
    let web = record("web", Status::Running);
    let revision = put(&from, &web);
    let copied = Hold::new();
    to.script(
        Call::Create,
        1,
        ScriptedResult::WaitAfterwards(copied.clone()),
    );
    thread::scope(|scope| {
        let migration = scope.spawn(|| migrate(&from, &to));
        copied.wait_until_reached();
        change(&from, &revision, web);
        copied.open();
        migration.join().expect("no panic").expect("migrate");
    });
    to
}

#[test]
fn record_changed_during_migration_is_copied_again() {
    let to = while_it_is_copied(|from, revision, mut web| {
        web.status = Status::Paused;
        from.update(revision, &web).expect("update");
    });
    assert_eq!(
        to.get(&id("web")).expect("get").record.status,
        Status::Paused
    );
}

#[test]
fn record_deleted_during_migration_is_not_kept() {
    let to = while_it_is_copied(|from, _, web| from.delete(&web.id).expect("delete"));
    assert_eq!(to.list().expect("list"), []);
}

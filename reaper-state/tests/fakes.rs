//! What consumers test their own logic with.

use std::{io, thread};

use reaper_spec::{ContainerId, Status};
use reaper_state::{
    Call, Error, FakeStore, Hold, MockStateStore, Record, Revision, ScriptedResult, StateStore,
    conformance::Subject,
};

mod fake {
    use super::*;
    reaper_state::state_store_conformance!(|| Subject::new(FakeStore::new()));
}

fn web() -> Record {
    Record::new(ContainerId::new("web").expect("an id"), "/bundle".into())
}

fn medium() -> Error {
    let source = io::ErrorKind::StorageFull.into();
    Error::Io {
        operation: "write",
        path: "/state".into(),
        source,
    }
}

#[test]
fn a_scripted_failure_changes_nothing() {
    let store = FakeStore::new();
    store.script(Call::Create, 1, ScriptedResult::Fail(medium()));
    assert!(matches!(store.create(&web()), Err(Error::Io { .. })));
    assert!(matches!(store.get(&web().id), Err(Error::NotFound { .. })));
    assert!(store.create(&web()).is_ok());
}

#[test]
fn failure_after_update_keeps_the_change() {
    let store = FakeStore::new();
    let revision = store.create(&web()).expect("create");
    store.script(Call::Update, 1, ScriptedResult::FailAfterwards(medium()));
    let mut stopped = web();
    stopped.status = Status::Stopped;
    assert!(store.update(&revision, &stopped).is_err());
    let stored = store.get(&stopped.id).expect("get");
    assert_eq!(stored.record.status, Status::Stopped);
    assert_ne!(stored.revision, revision);
}

#[test]
fn a_call_can_be_held_between_reading_and_writing() {
    let store = FakeStore::new();
    let revision = store.create(&web()).expect("create");
    let (before, after) = (Hold::new(), Hold::new());
    store.script(Call::Update, 1, ScriptedResult::Wait(before.clone()));
    store.script(
        Call::Delete,
        1,
        ScriptedResult::WaitAfterwards(after.clone()),
    );
    thread::scope(|scope| {
        let late = scope.spawn(|| store.update(&revision, &web()));
        before.wait_until_reached();
        store
            .update(&revision, &web())
            .expect("nobody has changed it yet");
        before.open();
        let late = late.join().expect("no panic");
        assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");

        let deleted = scope.spawn(|| store.delete(&web().id));
        after.wait_until_reached();
        assert_eq!(store.list().expect("list"), [], "done, but not answered");
        after.open();
        assert!(deleted.join().expect("no panic").is_ok());
    });
    assert_eq!(store.calls(Call::Update), 2);
}

#[test]
fn the_mock_expects_calls() {
    let mut store = MockStateStore::new();
    store
        .expect_create()
        .withf(|record| record.id.as_str() == "web")
        .times(1)
        .returning(|_| Ok(Revision::from_number(1)));
    let store: &dyn StateStore = &store;
    assert_eq!(
        store.create(&web()).expect("create"),
        Revision::from_number(1)
    );
}

//! Rules that one caller can see.

use std::{collections::HashSet, time::Duration, time::UNIX_EPOCH};

use reaper_spec::{ContainerId, Exit, ExitStatus, ProcessIdentity, Status, Timestamp};

use super::subject::Subject;
use crate::{Error, Record, Revision, StateStore, VersionedRecord};

pub(super) fn id(text: &str) -> ContainerId {
    ContainerId::new(text).expect("a valid id")
}

pub(super) fn record(name: &str) -> Record {
    Record::new(id(name), "/bundles/of/a container".into())
}

fn process(pid: u32) -> ProcessIdentity {
    let boot_id = "5bf1ac29-7c1b-4f8e-a8b2-6f7e4c2a9d10".to_owned();
    ProcessIdentity {
        pid,
        start_time: u64::MAX,
        boot_id,
    }
}

/// A record without an empty field.
fn full(name: &str, status: ExitStatus) -> Record {
    let at = |nanos| Timestamp::from(UNIX_EPOCH + Duration::new(1_700_000_000, nanos));
    let mut record = record(name);
    record.status = Status::Stopped;
    record.process = Some(process(4_194_304));
    record.monitor = Some(process(1));
    record.created = at(1);
    record.started = Some(at(999_999_999));
    record.exit = Some(Exit::new(status, at(123_456_789)));
    record.annotations = [("io.kubernetes.pod", "wëb\n\"\\\u{0}\u{1F980}"), ("", "")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    record
}

#[track_caller]
fn expect(store: &dyn StateStore, record: &Record, revision: &Revision) {
    let expected = VersionedRecord {
        record: record.clone(),
        revision: revision.clone(),
    };
    assert_eq!(
        store.get(&record.id).expect("the record is there"),
        expected
    );
}

#[track_caller]
fn expect_missing(store: &dyn StateStore, missing: &Record, revision: &Revision) {
    let id = &missing.id;
    let answers = [
        ("get", store.get(id).map(drop)),
        ("update", store.update(revision, missing).map(drop)),
        ("delete", store.delete(id)),
    ];
    for (call, answer) in answers {
        match answer {
            Err(Error::NotFound { id: named }) => assert_eq!(named, *id, "{call} names it"),
            other => panic!("{call} of a container that is not there: {other:?}"),
        }
    }
    assert!(!store.list().expect("list").contains(id), "it is listed");
}

#[track_caller]
pub(super) fn expect_taken<T: std::fmt::Debug>(answer: Result<T, Error>, id: &ContainerId) {
    match answer {
        Err(Error::AlreadyExists { id: named }) => assert_eq!(named, *id),
        other => panic!("create of an id that is taken: {other:?}"),
    }
}

pub(super) fn a_new_store_is_empty(subject: &Subject) {
    let store = subject.handle();
    assert_eq!(store.list().expect("list"), []);
    expect_missing(&store, &record("never-made"), &Revision::from_number(0));
    assert_eq!(store.list().expect("list"), [], "reading makes nothing");
}

pub(super) fn get_returns_created_record(subject: &Subject) {
    let store = subject.handle();
    let plain = record("plain");
    let full = full("full", ExitStatus::Exited { code: 7 });
    let plain_revision = store.create(&plain).expect("create");
    let full_revision = store.create(&full).expect("create");
    expect(&store, &plain, &plain_revision);
    expect(&store, &full, &full_revision);
}

pub(super) fn create_with_existing_id_is_refused(subject: &Subject) {
    let store = subject.handle();
    let first = record("web");
    let revision = store.create(&first).expect("create");
    let mut second = record("web");
    second.bundle = "/another".into();
    expect_taken(store.create(&second), &second.id);
    expect(&store, &first, &revision);
}

pub(super) fn every_status_and_exit_is_stored(subject: &Subject) {
    let store = subject.handle();
    let ends = [
        ExitStatus::Exited { code: 0 },
        ExitStatus::Exited { code: 255 },
        ExitStatus::Signaled {
            signal: 64,
            core: true,
        },
        ExitStatus::Unknown {
            reason: "the monitor was killed".to_owned(),
        },
    ];
    let records = ends
        .into_iter()
        .map(|end| full("web", end))
        .chain(Status::ALL.map(|status| {
            let mut record = record("web");
            record.status = status;
            record
        }));
    let mut revision = store.create(&record("web")).expect("create");
    for record in records {
        revision = store.update(&revision, &record).expect("update");
        expect(&store, &record, &revision);
    }
}

pub(super) fn a_large_record_is_kept(subject: &Subject) {
    let store = subject.handle();
    let mut large = record("large");
    large
        .annotations
        .insert("large".to_owned(), "x".repeat(1 << 20));
    let revision = store.create(&large).expect("create");
    expect(&store, &large, &revision);
    let small = record("large");
    let revision = store.update(&revision, &small).expect("update");
    expect(&store, &small, &revision);
}

pub(super) fn an_update_replaces_the_record(subject: &Subject) {
    let store = subject.handle();
    let first = full("web", ExitStatus::Exited { code: 0 });
    let created = store.create(&first).expect("create");
    let second = record("web");
    let updated = store.update(&created, &second).expect("update");
    assert_ne!(updated, created);
    expect(&store, &second, &updated);
}

pub(super) fn an_update_of_an_old_revision_is_a_conflict(subject: &Subject) {
    let store = subject.handle();
    let mut now = record("web");
    let old = store.create(&now).expect("create");
    now.status = Status::Running;
    let revision = store.update(&old, &now).expect("update");
    match store.update(&old, &record("web")) {
        Err(Error::Conflict { id, actual }) => {
            assert_eq!((id, actual), (now.id.clone(), Status::Running));
        }
        other => panic!("an update of an old revision: {other:?}"),
    }
    expect(&store, &now, &revision);
}

pub(super) fn an_update_without_a_change_is_a_new_revision(subject: &Subject) {
    let store = subject.handle();
    let same = record("web");
    let first = store.create(&same).expect("create");
    let second = store.update(&first, &same).expect("update");
    assert_ne!(first, second);
    let answer = store.update(&first, &same);
    assert!(matches!(answer, Err(Error::Conflict { .. })), "{answer:?}");
}

pub(super) fn revisions_are_never_reused(subject: &Subject) {
    let mut seen = HashSet::new();
    let same = record("web");
    let mut last_life = None;
    for _ in 0..20 {
        // A handle of its own for each life: a counter in it would begin again.
        let store = subject.handle();
        let mut revision = store.create(&same).expect("create");
        for old in last_life.take().iter() {
            let answer = store.update(old, &same);
            assert!(matches!(answer, Err(Error::Conflict { .. })), "{answer:?}");
        }
        assert!(seen.insert(revision.clone()), "{revision} was there before");
        for _ in 0..3 {
            revision = store.update(&revision, &same).expect("update");
            assert!(seen.insert(revision.clone()), "{revision} was there before");
        }
        store.delete(&same.id).expect("delete");
        last_life = Some(revision);
    }
}

pub(super) fn deleted_container_is_missing_and_its_id_free(subject: &Subject) {
    let store = subject.handle();
    let old = full("web", ExitStatus::Exited { code: 0 });
    let revision = store.create(&old).expect("create");
    store.delete(&old.id).expect("delete");
    expect_missing(&store, &old, &revision);
    let new = record("web");
    let revision = store.create(&new).expect("the id is free again");
    expect(&store, &new, &revision);
}

pub(super) fn containers_do_not_touch_each_other(subject: &Subject) {
    let store = subject.handle();
    let names = [
        "a",
        "a.b",
        "a-b",
        "a+b",
        "A",
        "state.json",
        "pid",
        "exit.json",
    ];
    let records = names.map(record).map(|record| {
        let revision = store.create(&record).expect("create");
        (record, revision)
    });
    let (mut changed, revision) = records[0].clone();
    changed.status = Status::Paused;
    let revision = store.update(&revision, &changed).expect("update");
    store.delete(&records[1].0.id).expect("delete");
    expect(&store, &changed, &revision);
    for (record, revision) in &records[2..] {
        expect(&store, record, revision);
    }
    let foreign = store.update(&revision, &records[2].0);
    assert!(
        matches!(foreign, Err(Error::Conflict { .. })),
        "another's revision: {foreign:?}"
    );
}

pub(super) fn the_list_is_sorted_and_complete(subject: &Subject) {
    let store = subject.handle();
    let long = "x".repeat(reaper_spec::MAX_ID_LENGTH);
    let names = ["z", "_", "b", "B", "10", "9", "a.json", "a", &long];
    for name in names {
        store.create(&record(name)).expect("create");
    }
    let mut expected: Vec<_> = names.map(id).into();
    expected.sort_unstable();
    assert_eq!(store.list().expect("list"), expected);
}

pub(super) fn another_handle_sees_every_change(subject: &Subject) {
    let (one, two) = (subject.handle(), subject.handle());
    let mut shared = record("web");
    let created = one.create(&shared).expect("create");
    expect(&one, &shared, &created);
    expect(&two, &shared, &created);
    expect_taken(two.create(&shared), &shared.id);
    shared.status = Status::Created;
    let updated = two.update(&created, &shared).expect("update");
    expect(&one, &shared, &updated);
    let answer = one.update(&created, &shared);
    assert!(matches!(answer, Err(Error::Conflict { .. })), "{answer:?}");
    drop(two);
    expect(&subject.handle(), &shared, &updated);
    one.delete(&shared.id).expect("delete");
    expect_missing(&subject.handle(), &shared, &updated);
}

/// A process that is killed drops nothing: the handle is leaked.
fn acknowledge<T>(subject: &Subject, call: impl FnOnce(&dyn StateStore) -> T) -> T {
    let store = subject.handle();
    let answer = call(&store);
    std::mem::forget(store);
    answer
}

pub(super) fn acknowledged_change_outlives_its_writer(subject: &Subject) {
    let mut changed = record("web");
    let created = acknowledge(subject, |store| store.create(&changed)).expect("create");
    expect(&subject.handle(), &changed, &created);
    changed.status = Status::Running;
    let updated = acknowledge(subject, |store| store.update(&created, &changed)).expect("update");
    expect(&subject.handle(), &changed, &updated);
    acknowledge(subject, |store| store.delete(&changed.id)).expect("delete");
    expect_missing(&subject.handle(), &changed, &updated);
}

pub(super) fn newer_record_is_named_kept_and_hides_no_other(subject: &Subject) {
    let Some(write_newer) = &subject.write_newer else {
        return;
    };
    let store = subject.handle();
    let (newer, other) = (record("newer"), record("other"));
    let old = store.create(&newer).expect("create");
    let revision = store.create(&other).expect("create");
    write_newer(&newer.id);
    // What is written over it is lost to the program that can read it.
    for answer in [
        store.get(&newer.id).map(drop),
        store.update(&old, &newer).map(drop),
        store.get(&newer.id).map(drop),
    ] {
        match answer {
            Err(Error::Newer { id, .. }) => assert_eq!(id, newer.id),
            other => panic!("a record of a later version: {other:?}"),
        }
    }
    expect_taken(store.create(&newer), &newer.id);
    let both = [newer.id.clone(), other.id.clone()];
    assert_eq!(store.list().expect("list"), both);
    expect(&store, &other, &revision);
    store.delete(&newer.id).expect("delete");
    assert_eq!(store.list().expect("list"), [other.id]);
}

pub(super) fn stores_of_two_roots_are_separate(subject: &Subject) {
    let Some(neighbor) = &subject.neighbor else {
        return;
    };
    let (store, neighbor) = (subject.handle(), neighbor());
    let (own, theirs) = (record("web"), full("web", ExitStatus::Exited { code: 1 }));
    let revision = store.create(&own).expect("create");
    assert_eq!(neighbor.list().expect("list"), []);
    let theirs_at = neighbor
        .create(&theirs)
        .expect("the same id at another root");
    expect(&store, &own, &revision);
    store.delete(&own.id).expect("delete");
    expect(&neighbor, &theirs, &theirs_at);
    assert_eq!(store.list().expect("list"), []);
}

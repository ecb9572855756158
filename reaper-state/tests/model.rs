//! Whatever is called in whatever order, every store answers as the one in memory does; and no
//! bytes make the reader of records panic.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reaper_spec::{ContainerId, Exit, ExitStatus, ProcessIdentity, Status, Timestamp};
use reaper_state::{
    Error, FileStore, MemoryStore, Record, Revision, SqliteStore, StateRoot, StateStore,
    format::{decode, encode},
};

#[derive(Debug, Clone)]
enum Step {
    Create(Record),
    Get(ContainerId),
    /// With the revision that came last for this id, or with the one before.
    Update(Record, bool),
    Delete(ContainerId),
    List,
    /// As another process: with a new handle.
    Reopen,
}

/// What was answered, without what differs between stores: the revisions.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Record(Box<Record>),
    Ids(Vec<ContainerId>),
    Refused(String),
}

fn refused(error: Error) -> Answer {
    assert!(
        !matches!(error, Error::Io { .. } | Error::Corrupt { .. }),
        "{error}"
    );
    Answer::Refused(error.to_string())
}

fn ids() -> impl Strategy<Value = ContainerId> {
    prop::sample::select(vec!["a", "b", "B.c"]).prop_map(|id| ContainerId::new(id).expect("an id"))
}

fn identities() -> impl Strategy<Value = ProcessIdentity> {
    let parts = (any::<u32>(), any::<u64>(), ".{0,40}");
    parts.prop_map(|(pid, start_time, boot_id)| ProcessIdentity {
        pid,
        start_time,
        boot_id,
    })
}

fn times() -> impl Strategy<Value = Timestamp> {
    // Up to the year 9999, the last that RFC 3339 can write.
    (0_u64..253_402_300_800, 0_u32..1_000_000_000).prop_map(|(seconds, nanos)| {
        let since_epoch = std::time::Duration::new(seconds, nanos);
        Timestamp::from(std::time::UNIX_EPOCH + since_epoch)
    })
}

fn exits() -> impl Strategy<Value = Exit> {
    let status = prop_oneof![
        any::<u8>().prop_map(|code| ExitStatus::Exited { code }),
        (1_i32..65, any::<bool>()).prop_map(|(signal, core)| ExitStatus::Signaled { signal, core }),
        ".{0,40}".prop_map(|reason| ExitStatus::Unknown { reason }),
    ];
    (status, times()).prop_map(|(status, at)| Exit::new(status, at))
}

fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(".{0,20}", ".{0,20}", 0..4)
}

fn records() -> impl Strategy<Value = Record> {
    let processes = (
        prop::option::of(identities()),
        prop::option::of(identities()),
    );
    let moments = (
        times(),
        prop::option::of(times()),
        prop::option::of(exits()),
    );
    let status = prop::sample::select(Status::ALL.to_vec());
    (ids(), "/.{0,40}", status, processes, moments, annotations()).prop_map(
        |(id, bundle, status, (process, monitor), (created, started, exit), annotations)| {
            let mut record = Record::new(id, bundle.into());
            record.status = status;
            record.process = process;
            record.monitor = monitor;
            record.created = created;
            record.started = started;
            record.exit = exit;
            record.annotations = annotations;
            record
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => records().prop_map(Step::Create),
        2 => ids().prop_map(Step::Get),
        4 => (records(), any::<bool>()).prop_map(|(record, stale)| Step::Update(record, stale)),
        2 => ids().prop_map(Step::Delete),
        1 => Just(Step::List),
        1 => Just(Step::Reopen),
    ]
}

fn keep(known: &mut Vec<Revision>, answer: Result<Revision, Error>) -> Answer {
    answer.map_or_else(refused, |revision| {
        known.push(revision);
        Answer::Done
    })
}

fn play(open: &dyn Fn() -> Box<dyn StateStore>, steps: &[Step]) -> Vec<Answer> {
    let mut store = open();
    let mut revisions: BTreeMap<ContainerId, Vec<Revision>> = BTreeMap::new();
    let mut answers = Vec::new();
    for step in steps {
        answers.push(match step {
            Step::Create(record) => keep(
                revisions.entry(record.id.clone()).or_default(),
                store.create(record),
            ),
            Step::Get(id) => match store.get(id) {
                Ok(stored) => Answer::Record(Box::new(stored.record)),
                Err(error) => refused(error),
            },
            Step::Update(record, stale) => {
                let known = revisions.entry(record.id.clone()).or_default();
                let back = known.len().checked_sub(1 + usize::from(*stale));
                let never = Revision::from_number(0);
                let expected = back.map_or(never, |at| known[at].clone());
                keep(known, store.update(&expected, record))
            }
            Step::Delete(id) => store.delete(id).map_or_else(refused, |()| Answer::Done),
            Step::List => store.list().map_or_else(refused, Answer::Ids),
            Step::Reopen => {
                store = open();
                Answer::Done
            }
        });
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_store_behaves_like_memory_store(steps in prop::collection::vec(steps(), 1..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let memory = std::sync::Arc::new(MemoryStore::new());
        let expected = play(&|| Box::new(memory.clone()), &steps);
        let files = play(&|| Box::new(FileStore::new(StateRoot::new(path.join("files")))), &steps);
        prop_assert_eq!(&files, &expected);
        let sqlite = play(&|| Box::new(SqliteStore::new(path.join("state.db"))), &steps);
        prop_assert_eq!(&sqlite, &expected);
    }
}

proptest! {
    #[test]
    fn records_are_read_back_as_they_were(record in records(), number in any::<u128>()) {
        let revision = Revision::from_number(number);
        let text = encode(&record, &revision).expect("encode");
        let stored = decode(text.as_bytes()).expect("decode");
        prop_assert_eq!((stored.record, stored.revision), (record, revision));
    }

    #[test]
    fn decode_of_random_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn decode_of_damaged_record_never_panics(record in records(), at in any::<prop::sample::Index>(), to: u8) {
        let text = encode(&record, &Revision::from_number(1)).expect("encode");
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = decode(&bytes);
    }
}

//! Rules that many callers at once can see.

use std::{
    collections::HashSet,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use reaper_spec::Status;

use super::{
    rules::{expect_taken, id, record},
    subject::Subject,
};
use crate::{Error, Record, Revision, StateStore};

const THREADS: usize = 8;

/// Runs `act` on as many threads as asked, each with a handle of its own, at the same time.
fn together<T: Send>(
    subject: &Subject,
    threads: usize,
    act: impl Fn(usize, &dyn StateStore) -> T + Sync,
) -> Vec<T> {
    let barrier = Barrier::new(threads);
    let handles: Vec<_> = (0..threads).map(|_| subject.handle()).collect();
    thread::scope(|scope| {
        let (act, barrier) = (&act, &barrier);
        let started: Vec<_> = handles
            .iter()
            .enumerate()
            .map(|(number, store)| {
                scope.spawn(move || {
                    barrier.wait();
                    act(number, store)
                })
            })
            .collect();
        started
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

const COUNT: &str = "count";

fn counted(name: &str, count: usize) -> Record {
    let mut record = record(name);
    record
        .annotations
        .insert(COUNT.to_owned(), count.to_string());
    record
}

fn count(record: &Record) -> usize {
    record.annotations[COUNT].parse().expect("a number")
}

pub(super) fn one_of_many_concurrent_creates_succeeds(subject: &Subject) {
    for round in 0..10 {
        let name = format!("web-{round}");
        let created = together(subject, THREADS, |number, store| {
            store
                .create(&counted(&name, number))
                .map(|revision| (number, revision))
        });
        let (won, lost): (Vec<_>, Vec<_>) = created.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "creators that won");
        lost.into_iter()
            .for_each(|answer| expect_taken(answer, &id(&name)));
        let stored = subject.handle().get(&id(&name)).expect("get");
        for (number, revision) in won.into_iter().flatten() {
            assert_eq!(
                (count(&stored.record), &stored.revision),
                (number, &revision)
            );
        }
    }
}

pub(super) fn one_of_many_updates_of_a_revision_wins(subject: &Subject) {
    let mut revision = subject.handle().create(&counted("web", 0)).expect("create");
    for round in 0..10 {
        let answers = together(subject, THREADS, |number, store| {
            store
                .update(&revision, &counted("web", number))
                .map(|revision| (number, revision))
        });
        let mut won = Vec::new();
        for answer in answers {
            match answer {
                Ok(winner) => won.push(winner),
                Err(Error::Conflict { .. }) => {}
                Err(error) => panic!("round {round}: {error:?}"),
            }
        }
        assert_eq!(won.len(), 1, "updates of one revision that won");
        let stored = subject.handle().get(&id("web")).expect("get");
        let (number, won) = won.remove(0);
        assert_eq!((count(&stored.record), &stored.revision), (number, &won));
        revision = won;
    }
}

/// Updates of each thread.
const EACH: usize = 15;

pub(super) fn no_update_is_lost(subject: &Subject) {
    subject.handle().create(&counted("web", 0)).expect("create");
    let revisions = together(subject, THREADS, |_, store| {
        (0..EACH).map(|_| add_one(store)).collect::<Vec<Revision>>()
    });
    let stored = subject.handle().get(&id("web")).expect("get");
    assert_eq!(count(&stored.record), THREADS * EACH);
    let different: HashSet<_> = revisions.into_iter().flatten().collect();
    assert_eq!(different.len(), THREADS * EACH, "revisions");
}

/// Reads again after a conflict. Each conflict means that an update of another thread was made.
fn add_one(store: &dyn StateStore) -> Revision {
    for _ in 0..=THREADS * EACH {
        let stored = store.get(&id("web")).expect("get");
        let next = counted("web", count(&stored.record) + 1);
        match store.update(&stored.revision, &next) {
            Ok(revision) => return revision,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("more conflicts than updates");
}

pub(super) fn readers_see_whole_records_in_order(subject: &Subject) {
    // As long as its number: a mixture of two would show.
    fn versioned(number: usize) -> Record {
        let mut record = counted("web", number);
        let filling = number.to_string();
        record
            .annotations
            .extend((0..number).map(|key| (format!("{key}"), filling.clone())));
        record
    }
    const VERSIONS: usize = 60;
    let mut revision = subject.handle().create(&versioned(0)).expect("create");
    let done = AtomicBool::new(false);
    let writer = subject.handle();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=VERSIONS {
                revision = writer
                    .update(&revision, &versioned(number))
                    .expect("update");
            }
            done.store(true, Ordering::Release);
        });
        together(subject, 4, |_, store| {
            let mut last = 0;
            loop {
                let is_last = done.load(Ordering::Acquire);
                let read = store.get(&id("web")).expect("get").record;
                let number = count(&read);
                assert_eq!(
                    read.annotations,
                    versioned(number).annotations,
                    "a torn record"
                );
                assert!(number >= last, "read {number} after {last}");
                last = number;
                if is_last {
                    assert_eq!(last, VERSIONS, "what was acknowledged is read");
                    return;
                }
            }
        });
    });
}

pub(super) fn concurrent_creates_and_deletes_alternate(subject: &Subject) {
    let balances = together(subject, THREADS, |number, store| {
        let mut balance = 0_i32;
        for round in 0..20 {
            if (number + round) % 2 == 0 {
                match store.create(&record("web")) {
                    Ok(_) => balance += 1,
                    Err(Error::AlreadyExists { .. }) => {}
                    Err(error) => panic!("create: {error:?}"),
                }
            } else {
                match store.delete(&id("web")) {
                    Ok(()) => balance -= 1,
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => panic!("delete: {error:?}"),
                }
            }
        }
        balance
    });
    let left = i32::from(subject.handle().get(&id("web")).is_ok());
    assert_eq!(
        balances.into_iter().sum::<i32>(),
        left,
        "creations less deletions"
    );
    assert_eq!(
        subject.handle().list().expect("list").len(),
        usize::try_from(left).expect("0 or 1")
    );
}

pub(super) fn list_contains_unchanged_record_while_others_change(subject: &Subject) {
    let stays = record("stays");
    let revision = subject.handle().create(&stays).expect("create");
    together(subject, THREADS, |number, store| {
        let mut comes = record(&format!("comes-{number}"));
        for _ in 0..10 {
            let revision = store.create(&comes).expect("create");
            let listed = store.list().expect("list");
            assert!(
                listed.contains(&stays.id) && listed.contains(&comes.id),
                "{listed:?}"
            );
            comes.status = Status::Stopped;
            store.update(&revision, &comes).expect("update");
            store.delete(&comes.id).expect("delete");
            let listed = store.list().expect("list");
            assert!(
                listed.contains(&stays.id) && !listed.contains(&comes.id),
                "{listed:?}"
            );
        }
    });
    let stored = subject.handle().get(&stays.id).expect("get");
    assert_eq!((stored.record, stored.revision), (stays, revision));
}

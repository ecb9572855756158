//! Many processes on one store, and processes that are killed while they write.

use std::{
    collections::HashSet,
    env,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use reaper_spec::{ContainerId, ProcessIdentity};
use reaper_state::{Error, FileStore, Record, SqliteStore, StateRoot, StateStore};

const ROOT: &str = "REAPER_STATE_TEST_ROOT";
const FIRST: &str = "REAPER_STATE_TEST_FIRST";

type Open = fn(&Path) -> Box<dyn StateStore>;

fn files(root: &Path) -> Box<dyn StateStore> {
    Box::new(FileStore::new(StateRoot::new(root)))
}

fn sqlite(root: &Path) -> Box<dyn StateStore> {
    Box::new(SqliteStore::new(root.join("not/there/yet/state.db")))
}

/// The store that a test has told its child to use.
fn asked_for(open: Open) -> Option<Box<dyn StateStore>> {
    env::var_os(ROOT).map(|root| open(Path::new(&root)))
}

/// This program again, running only the named test. Its stderr is for what it has to report.
fn child(test: &str, root: &Path, first: u32) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", test, "--test-threads=1"])
        .env(ROOT, root)
        .env(FIRST, first.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child")
}

fn id() -> ContainerId {
    ContainerId::new("web").expect("an id")
}

const COUNT: &str = "count";

/// A record of some pages, every part of which says the number.
fn numbered(number: u32) -> Record {
    let mut record = Record::new(id(), "/bundle".into());
    let boot_id = number.to_string();
    record.process = Some(ProcessIdentity {
        pid: number,
        start_time: 1,
        boot_id,
    });
    record
        .annotations
        .insert(COUNT.to_owned(), number.to_string());
    record
        .annotations
        .insert("filling".to_owned(), format!("{number},").repeat(3000));
    record
}

fn number(record: &Record) -> u32 {
    let number = record.annotations[COUNT].parse().expect("a number");
    assert_eq!(
        record.annotations,
        numbered(number).annotations,
        "a torn record"
    );
    assert_eq!(record.process, numbered(number).process, "a torn record");
    number
}

/// What there is after the `number`th change: each tenth one deletes.
fn after(number: u32) -> Option<u32> {
    (!number.is_multiple_of(10)).then_some(number)
}

fn change_for_ever(store: &dyn StateStore) -> ! {
    let mut next: u32 = env::var(FIRST).expect("set").parse().expect("a number");
    loop {
        match (after(next - 1), after(next)) {
            (_, None) => store.delete(&id()).expect("delete"),
            (None, _) => drop(store.create(&numbered(next)).expect("create")),
            _ => {
                let current = store.get(&id()).expect("get").revision;
                store.update(&current, &numbered(next)).expect("update");
            }
        }
        // One write: the acknowledgement is out before the next change begins.
        io::stderr()
            .write_all(format!("{next}\n").as_bytes())
            .expect("the parent listens");
        next += 1;
    }
}

fn every_acknowledged_change_survives_a_kill(test: &str, open: Open) {
    if let Some(store) = asked_for(open) {
        change_for_ever(&*store);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let mut last = 0;
    for round in 0..60 {
        let mut child = child(test, folder.path(), last + 1);
        let mut acknowledged = BufReader::new(child.stderr.take().expect("piped")).lines();
        let wanted = 1 + (round * 7) % 23;
        let seen = acknowledged.by_ref().take(wanted).last();
        child.kill().expect("kill");
        child.wait().expect("wait");
        // What it still had acknowledged when the kill came.
        let acknowledged = acknowledged
            .last()
            .or(seen)
            .expect("it has begun")
            .expect("a line");
        let acknowledged: u32 = acknowledged.parse().expect("it does not fail");
        let found = match store.get(&id()) {
            Ok(stored) => Some(number(&stored.record)),
            Err(Error::NotFound { .. }) => None,
            Err(error) => panic!("after change {acknowledged}: {error}"),
        };
        last = [acknowledged, acknowledged + 1]
            .into_iter()
            .find(|change| after(*change) == found)
            .unwrap_or_else(|| panic!("change {acknowledged} was acknowledged, found {found:?}"));
    }
    if after(last).is_some() {
        store.delete(&id()).expect("delete");
        assert!(
            !folder.path().join("web").exists(),
            "also what the killed ones had left is gone"
        );
    }
}

const PROCESSES: u32 = 6;
const EACH: u32 = 40;

fn add_one(store: &dyn StateStore) {
    loop {
        let current = store.get(&id()).expect("get");
        let next = numbered(number(&current.record) + 1);
        match store.update(&current.revision, &next) {
            Ok(revision) => {
                io::stderr()
                    .write_all(format!("{revision}\n").as_bytes())
                    .expect("reported");
                return;
            }
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn each_revision_has_one_successor_among_many_processes(test: &str, open: Open) {
    if let Some(store) = asked_for(open) {
        io::stdin()
            .read_to_end(&mut Vec::new())
            .expect("the parent closes it");
        // The first ones also race for making the store.
        match store.create(&numbered(0)) {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        (0..EACH).for_each(|_| add_one(&*store));
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let mut children: Vec<_> = (0..PROCESSES)
        .map(|_| child(test, folder.path(), 0))
        .collect();
    // They are all there before the first may begin.
    children
        .iter_mut()
        .for_each(|child| drop(child.stdin.take()));
    let mut revisions = HashSet::new();
    for child in children {
        let output = child.wait_with_output().expect("a child");
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{text}");
        revisions.extend(text.lines().map(str::to_owned));
    }
    assert_eq!(
        revisions.len(),
        (PROCESSES * EACH) as usize,
        "all different"
    );
    let stored = store.get(&id()).expect("get");
    assert_eq!(
        number(&stored.record),
        PROCESSES * EACH,
        "no update is lost"
    );
    assert!(revisions.contains(&stored.revision.to_string()));
}

macro_rules! stores {
    ($($store:ident)*) => {$(
        mod $store {
            const OPEN: super::Open = super::$store;

            #[test]
            fn every_acknowledged_change_survives_a_kill() {
                let test = concat!(stringify!($store), "::every_acknowledged_change_survives_a_kill");
                super::every_acknowledged_change_survives_a_kill(test, OPEN);
            }

            #[test]
            fn each_revision_has_one_successor_among_many_processes() {
                let test = concat!(
                    stringify!($store),
                    "::each_revision_has_one_successor_among_many_processes"
                );
                super::each_revision_has_one_successor_among_many_processes(test, OPEN);
            }
        }
    )*};
}

stores! { files sqlite }

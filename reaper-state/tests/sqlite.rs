//! What the SQLite store makes of the files that it finds.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf, thread};

use reaper_spec::ContainerId;
use reaper_state::{Error, RECORD_VERSION, Record, SqliteStore, StateStore};
use rusqlite::Connection;
use tempfile::TempDir;

struct Fixture {
    _folder: TempDir,
    path: PathBuf,
    store: SqliteStore,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("below/state.db");
    Fixture {
        store: SqliteStore::new(&path),
        path,
        _folder: folder,
    }
}

fn web() -> Record {
    Record::new(ContainerId::new("web").expect("an id"), "/bundle".into())
}

fn kind(error: Error) -> io::ErrorKind {
    match error {
        Error::Io { source, .. } => source.kind(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_create_no_database() {
    let f = fixture();
    assert_eq!(f.store.list().expect("list"), []);
    assert!(matches!(
        f.store.get(&web().id),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        f.store.delete(&web().id),
        Err(Error::NotFound { .. })
    ));
    assert!(!f.path.parent().expect("a parent").exists());
}

#[test]
fn the_database_is_private_and_readable_with_other_tools() {
    let f = fixture();
    let revision = f.store.create(&web()).expect("create");
    for suffix in ["", "-wal", "-shm", "-lock"] {
        let path = format!("{}{suffix}", f.path.display());
        let mode = fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{path}");
    }
    let row: (String, String) = Connection::open(&f.path)
        .expect("open")
        .query_row(
            "SELECT revision, document ->> 'status' FROM record",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("a row");
    assert_eq!(row, (revision.to_string(), "creating".to_owned()));
}

#[test]
fn a_database_that_was_removed_or_replaced_is_noticed() {
    let f = fixture();
    f.store.create(&web()).expect("create");
    let folder = f.path.parent().expect("a parent");
    fs::remove_dir_all(folder).expect("remove");
    assert_eq!(f.store.list().expect("list"), [], "it is gone");
    let revision = f.store.create(&web()).expect("a new database");
    let other = SqliteStore::new(&f.path)
        .get(&web().id)
        .expect("others see it");
    assert_eq!(other.revision, revision);
}

#[test]
fn empty_database_file_reads_as_empty() {
    let f = fixture();
    fs::create_dir(f.path.parent().expect("a parent")).expect("mkdir");
    fs::write(&f.path, "").expect("what a crash leaves");
    assert_eq!(f.store.list().expect("list"), []);
    f.store.create(&web()).expect("create");
}

#[test]
fn foreign_database_file_is_refused_and_unchanged() {
    let f = fixture();
    fs::create_dir(f.path.parent().expect("a parent")).expect("mkdir");
    let text = "not a database, but long enough to be taken for one ".repeat(30);
    fs::write(&f.path, &text).expect("write");
    assert_eq!(
        kind(f.store.list().expect_err("no database")),
        io::ErrorKind::InvalidData
    );
    assert_eq!(
        kind(f.store.create(&web()).expect_err("none")),
        io::ErrorKind::InvalidData
    );
    assert_eq!(fs::read_to_string(&f.path).expect("read"), text);

    fs::remove_file(&f.path).expect("remove");
    let theirs = Connection::open(&f.path).expect("open");
    theirs
        .execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 1")
        .expect("theirs");
    assert_eq!(
        kind(f.store.list().expect_err("theirs")),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn a_newer_database_is_refused_by_name() {
    let f = fixture();
    f.store.create(&web()).expect("create");
    let newer = Connection::open(&f.path).expect("open");
    newer
        .execute_batch("PRAGMA user_version = 99")
        .expect("a newer schema");
    match SqliteStore::new(&f.path).list() {
        Err(Error::NewerStore {
            path,
            found: 99,
            known,
        }) => {
            assert!(path == f.path && known < 99);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn row_without_valid_record_is_reported() {
    let f = fixture();
    let revision = f.store.create(&web()).expect("create");
    let put = |document: &str| {
        let tool = Connection::open(&f.path).expect("open");
        tool.execute("UPDATE record SET document = ?1", [document])
            .expect("update");
    };
    for document in ["", "{", "{}"] {
        put(document);
        for answer in [
            f.store.get(&web().id).map(drop),
            f.store.update(&revision, &web()).map(drop),
        ] {
            assert!(
                matches!(answer, Err(Error::Corrupt { .. })),
                "{document:?}: {answer:?}"
            );
        }
    }
    put("{\"version\": 7}");
    let answer = f.store.get(&web().id);
    assert!(
        matches!(
            answer,
            Err(Error::Newer {
                found: 7,
                known: RECORD_VERSION,
                ..
            })
        ),
        "{answer:?}"
    );
    assert_eq!(f.store.list().expect("list"), [web().id]);
    f.store.delete(&web().id).expect("delete");
    assert_eq!(f.store.list().expect("list"), []);
}

#[test]
fn short_lived_handles_lose_no_update_and_never_fail() {
    const THREADS: u32 = 6;
    const EACH: u32 = 25;
    let f = fixture();
    SqliteStore::new(&f.path).create(&web()).expect("create");
    // As with calls of a command: the last one to close the database removes its log, while
    // another opens it.
    let add_one = || loop {
        let mut stored = SqliteStore::new(&f.path).get(&web().id).expect("get");
        let count = stored
            .record
            .annotations
            .entry("count".to_owned())
            .or_default();
        count.push('x');
        match SqliteStore::new(&f.path).update(&stored.revision, &stored.record) {
            Ok(_) => break,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..EACH).for_each(|_| add_one()));
        }
    });
    let stored = f.store.get(&web().id).expect("get");
    assert_eq!(
        stored.record.annotations["count"].len(),
        (THREADS * EACH) as usize
    );
}

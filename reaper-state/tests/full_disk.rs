//! A full disk leaves everything as it was.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use reaper_spec::{ContainerId, ProcessIdentity, Status};
use reaper_state::{Error, FileStore, Record, SqliteStore, StateRoot, StateStore};

const PAGE: u64 = 4096;

/// Runs `test` on a tmpfs of 64 pages that only its thread sees, and that ends with it.
fn on_a_small_disk(test: impl FnOnce(&Path) + Send) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare: the tests run as root");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
            let size = Some("size=256k,nr_inodes=100");
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), size).expect("tmpfs");
            test(path);
        });
        run.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Writes until nothing more fits, then gives `pages` back.
fn fill(path: &Path, pages: u64) {
    let mut file = File::create(path).expect("a file");
    let error = loop {
        if let Err(error) = file.write_all(&[1; PAGE as usize]) {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let length = file.metadata().expect("metadata").len();
    file.set_len(length - pages * PAGE).expect("truncate");
}

fn expect_full<T: std::fmt::Debug>(answer: Result<T, Error>) {
    match answer {
        Err(Error::Io { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::StorageFull),
        other => panic!("on a full disk: {other:?}"),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort_unstable();
    names
}

fn record(name: &str) -> Record {
    Record::new(ContainerId::new(name).expect("an id"), "/bundle".into())
}

#[test]
fn a_full_disk_leaves_all_files_as_they_were() {
    on_a_small_disk(|disk| {
        let store = FileStore::new(StateRoot::new(disk.join("state")));
        let web = record("web");
        store.create(&web).expect("create");
        let before = store.get(&web.id).expect("get");
        let mut created = web.clone();
        created.status = Status::Created;
        created.process = Some(ProcessIdentity {
            pid: 7,
            start_time: 1,
            boot_id: "boot".to_owned(),
        });

        // One page is enough for the record, but not for the pid's file too.
        for pages in [0, 1] {
            fill(&disk.join("filling"), pages);
            expect_full(store.update(&before.revision, &created));
            assert_eq!(store.get(&web.id).expect("get"), before);
            assert_eq!(names(&disk.join("state/web")), ["state.json"]);
            let mut another = created.clone();
            another.id = record("another").id;
            expect_full(store.create(&another));
            assert_eq!(names(&disk.join("state")), ["web"]);
        }

        fs::remove_file(disk.join("filling")).expect("remove");
        let revision = store
            .update(&before.revision, &created)
            .expect("there is room again");
        fill(&disk.join("filling"), 0);
        expect_full(store.update(&revision, &web));
        assert_eq!(
            fs::read_to_string(disk.join("state/web/pid")).expect("pid"),
            "7\n"
        );
        store.delete(&web.id).expect("deleting needs no room");
        assert_eq!(names(&disk.join("state")), [""; 0]);
    });
}

#[test]
fn a_full_disk_leaves_a_database_as_it_was() {
    on_a_small_disk(|disk| {
        let store = SqliteStore::new(disk.join("state.db"));
        let web = record("web");
        store.create(&web).expect("create");
        let before = store.get(&web.id).expect("get");
        let mut running = web.clone();
        running.status = Status::Running;
        running
            .annotations
            .insert("filling".to_owned(), "x".repeat(3 * PAGE as usize));
        fill(&disk.join("filling"), 0);
        expect_full(store.update(&before.revision, &running));
        assert_eq!(store.get(&web.id).expect("get"), before);
        fs::remove_file(disk.join("filling")).expect("remove");
        store
            .update(&before.revision, &running)
            .expect("there is room again");
        assert_eq!(store.get(&web.id).expect("get").record, running);
    });
}

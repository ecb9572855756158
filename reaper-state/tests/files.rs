//! What the file store makes of the files that it finds, and what others find of its files.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::PathBuf,
    slice,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use reaper_spec::{ContainerId, Exit, ExitStatus, ProcessIdentity, Status, Timestamp};
use reaper_state::{
    Error, FileStore, RECORD_VERSION, Record, StateRoot, StateStore, VersionedRecord,
};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Fixture {
    _folder: TempDir,
    root: PathBuf,
    store: FileStore,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("state");
    let store = FileStore::new(StateRoot::new(&root));
    Fixture {
        _folder: folder,
        root,
        store,
    }
}

fn id(text: &str) -> ContainerId {
    ContainerId::new(text).expect("an id")
}

fn record(name: &str) -> Record {
    Record::new(id(name), "/bundle".into())
}

impl Fixture {
    /// A container, and the text of its record.
    fn with_record(&self, name: &str) -> (VersionedRecord, String) {
        self.store.create(&record(name)).expect("create");
        let text = fs::read_to_string(self.state(name)).expect("state.json");
        (self.store.get(&id(name)).expect("get"), text)
    }

    fn state(&self, name: &str) -> PathBuf {
        self.root.join(name).join("state.json")
    }

    #[track_caller]
    fn expect_corrupt(&self, stored: &VersionedRecord, what: &str) {
        let id = &stored.record.id;
        for (call, answer) in [
            ("get", self.store.get(id).map(drop)),
            (
                "update",
                self.store
                    .update(&stored.revision, &stored.record)
                    .map(drop),
            ),
        ] {
            match answer {
                Err(Error::Corrupt {
                    id: named,
                    path,
                    reason,
                }) => {
                    assert_eq!(
                        (&named, path),
                        (id, self.state(id.as_str())),
                        "{what}: {call}"
                    );
                    assert!(!reason.is_empty());
                }
                other => panic!("{what}: {call}: {other:?}"),
            }
        }
        assert_eq!(
            self.store.list().expect("list"),
            slice::from_ref(id),
            "{what}: it is listed"
        );
        let taken = self.store.create(&stored.record);
        assert!(
            matches!(taken, Err(Error::AlreadyExists { .. })),
            "{what}: {taken:?}"
        );
        self.store
            .delete(id)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!self.root.join(id.as_str()).exists(), "{what}: deleted");
    }
}

#[test]
fn record_is_stored_as_json_and_pid_files() {
    let f = fixture();
    let mut web = record("web");
    web.annotations.insert("a".to_owned(), "b".to_owned());
    let revision = f.store.create(&web).expect("create");
    let read = || -> Value {
        serde_json::from_slice(&fs::read(f.state("web")).expect("state.json")).expect("JSON")
    };
    let state = read();
    assert_eq!(state["version"], json!(RECORD_VERSION));
    assert_eq!(
        (&state["id"], &state["status"]),
        (&json!("web"), &json!("creating"))
    );
    assert_eq!(
        (&state["bundle"], &state["pid"]),
        (&json!("/bundle"), &json!(0))
    );
    assert_eq!(state.get("exit_code"), None);
    assert!(!f.root.join("web/pid").exists());

    web.status = Status::Stopped;
    web.process = Some(ProcessIdentity {
        pid: 4711,
        start_time: 5,
        boot_id: "boot".to_owned(),
    });
    let status = ExitStatus::Signaled {
        signal: 9,
        core: false,
    };
    web.exit = Some(Exit::new(status, Timestamp::now()));
    let revision = f.store.update(&revision, &web).expect("update");
    let state = read();
    assert_eq!(
        (&state["pid"], &state["exit_code"]),
        (&json!(4711), &json!(137))
    );
    assert_eq!(
        state["process"],
        json!({"pid": 4711, "start_time": 5, "boot_id": "boot"})
    );
    assert_eq!(
        (&state["exit"]["how"], &state["exit"]["signal"]),
        (&json!("signaled"), &json!(9))
    );
    assert_eq!(state["annotations"], json!({"a": "b"}));
    assert_eq!(
        fs::read_to_string(f.root.join("web/pid")).expect("pid"),
        "4711\n"
    );

    web.process = None;
    f.store.update(&revision, &web).expect("update");
    assert!(!f.root.join("web/pid").exists(), "no process, no pid");
}

#[test]
fn state_directories_and_files_are_private() {
    let f = fixture();
    let mut web = record("web");
    web.process = Some(ProcessIdentity {
        pid: 1,
        start_time: 1,
        boot_id: String::new(),
    });
    f.store.create(&web).expect("create");
    let mode = |path: &str| {
        fs::metadata(f.root.join(path))
            .expect("metadata")
            .permissions()
            .mode()
            & 0o777
    };
    let modes = ["", "web", "web/state.json", "web/pid"].map(mode);
    assert_eq!(modes, [0o711, 0o700, 0o600, 0o600]);
}

#[test]
fn reads_create_no_files() {
    let f = fixture();
    assert_eq!(f.store.list().expect("list"), []);
    assert!(f.store.get(&id("web")).is_err());
    assert!(f.store.delete(&id("web")).is_err());
    assert!(!f.root.exists());
}

#[test]
fn damaged_records_are_reported_as_corrupt() {
    let f = fixture();
    type Mangle = fn(&str) -> Vec<u8>;
    let mangled: [(&str, Mangle); 9] = [
        ("empty", |_| Vec::new()),
        ("truncated", |text| {
            text.as_bytes()[..text.len() / 2].to_vec()
        }),
        ("zeros, as after a power cut", |text| vec![0; text.len()]),
        ("alien JSON", |_| b"{\"ociVersion\": \"1.0.2\"}".to_vec()),
        ("not an object", |_| b"[]".to_vec()),
        ("not UTF-8", |_| vec![0xff, 0xfe]),
        ("another's", |text| {
            text.replace("\"web\"", "\"db\"").into_bytes()
        }),
        ("something behind it", |text| {
            format!("{text}{text}").into_bytes()
        }),
        ("version 0", |text| {
            text.replace("\"version\": 1", "\"version\": 0")
                .into_bytes()
        }),
    ];
    for (what, mangle) in mangled {
        let (stored, text) = f.with_record("web");
        let bytes = mangle(&text);
        assert_ne!(bytes, text.as_bytes(), "{what}");
        fs::write(f.state("web"), bytes).expect("write");
        f.expect_corrupt(&stored, what);
    }
}

#[test]
fn every_cut_of_a_record_is_reported() {
    let f = fixture();
    let (stored, text) = f.with_record("web");
    for length in 0..text.trim_end().len() {
        fs::write(f.state("web"), &text[..length]).expect("write");
        let read = f.store.get(&stored.record.id);
        assert!(
            matches!(read, Err(Error::Corrupt { .. })),
            "{length} bytes: {read:?}"
        );
    }
}

#[test]
fn irregular_state_file_is_reported_without_blocking() {
    let f = fixture();
    let (stored, text) = f.with_record("web");
    let state = f.state("web");
    let elsewhere = f.root.join(".elsewhere");
    fs::write(&elsewhere, text).expect("write");
    let replace: [(&str, &dyn Fn()); 4] = [
        ("a link", &|| symlink(&elsewhere, &state).expect("symlink")),
        ("a FIFO", &|| mkfifo(&state, Mode::S_IRWXU).expect("mkfifo")),
        ("a socket", &|| {
            drop(UnixListener::bind(&state).expect("bind"));
        }),
        ("a folder", &|| fs::create_dir(&state).expect("mkdir")),
    ];
    fs::remove_file(&state).expect("remove");
    for (what, replace) in replace {
        replace();
        f.expect_corrupt(&stored, what);
        fs::create_dir(f.root.join("web")).expect("mkdir");
    }
    assert!(elsewhere.exists(), "what a link leads to is not touched");
}

#[test]
fn a_link_in_the_place_of_a_folder_is_refused() {
    let f = fixture();
    let (stored, _) = f.with_record("web");
    let elsewhere = f.root.join(".elsewhere");
    fs::rename(f.root.join("web"), &elsewhere).expect("rename");
    symlink(&elsewhere, f.root.join("web")).expect("symlink");
    for answer in [
        f.store.get(&stored.record.id).map(drop),
        f.store.update(&stored.revision, &stored.record).map(drop),
        f.store.create(&stored.record).map(drop),
    ] {
        assert!(matches!(answer, Err(Error::Corrupt { .. })), "{answer:?}");
    }
    assert_eq!(
        f.store.list().expect("list"),
        slice::from_ref(&stored.record.id)
    );
    f.store.delete(&stored.record.id).expect("delete");
    assert!(!f.root.join("web").is_symlink());
    assert!(
        elsewhere.join("state.json").exists(),
        "what it led to is not touched"
    );
}

#[test]
fn a_newer_record_is_refused_by_name() {
    let f = fixture();
    let (stored, _) = f.with_record("web");
    for (version, expected) in [("2", 2), ("99999999999", u32::MAX)] {
        let newer = format!("{{\"version\": {version}, \"id\": {{\"new\": true}}}}");
        fs::write(f.state("web"), &newer).expect("write");
        for answer in [
            f.store.get(&stored.record.id).map(drop),
            f.store.update(&stored.revision, &stored.record).map(drop),
        ] {
            match answer {
                Err(Error::Newer { found, known, .. }) => {
                    assert_eq!((found, known), (expected, RECORD_VERSION));
                }
                other => panic!("a newer record: {other:?}"),
            }
        }
        assert_eq!(
            fs::read_to_string(f.state("web")).expect("read"),
            newer,
            "not touched"
        );
    }
}

#[test]
fn fields_of_a_later_program_with_the_same_version_are_ignored() {
    let f = fixture();
    let (stored, text) = f.with_record("web");
    let more = text.replacen('{', "{\"checkpoint\": {\"at\": [1]},", 1);
    fs::write(f.state("web"), more).expect("write");
    assert_eq!(f.store.get(&stored.record.id).expect("get"), stored);
}

#[test]
fn directory_without_record_is_reused_by_create() {
    let f = fixture();
    f.with_record("other");
    let folder = f.root.join("web");
    fs::create_dir(&folder).expect("mkdir");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::write(folder.join("exit.json"), "theirs").expect("write");
    fs::write(folder.join("pid"), "1").expect("a deletion that a crash has cut short");
    assert!(matches!(
        f.store.get(&id("web")),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        f.store.delete(&id("web")),
        Err(Error::NotFound { .. })
    ));
    assert_eq!(f.store.list().expect("list"), [id("other")]);

    f.store.create(&record("web")).expect("create");
    assert_eq!(
        fs::metadata(&folder).expect("metadata").mode() & 0o777,
        0o700
    );
    assert!(!folder.join("pid").exists(), "the pid of an earlier life");
    f.store.delete(&id("web")).expect("delete");
    let left: Vec<_> = fs::read_dir(&folder).expect("it stays").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        fs::read(folder.join("exit.json")).expect("not ours"),
        b"theirs"
    );
}

#[test]
fn a_folder_of_another_user_is_not_taken_over() {
    let f = fixture();
    f.with_record("other");
    fs::create_dir(f.root.join("web")).expect("mkdir");
    chown(f.root.join("web"), Some(1), Some(1)).expect("chown: the tests run as root");
    let answer = f.store.create(&record("web"));
    assert!(matches!(answer, Err(Error::Io { .. })), "{answer:?}");
    assert!(!f.state("web").exists());
}

#[test]
fn next_change_removes_files_left_by_crash() {
    let f = fixture();
    let (stored, _) = f.with_record("web");
    let leave = || {
        for name in [".state.json.new", ".pid.new", ".state.json.deleted"] {
            fs::write(f.root.join("web").join(name), "half").expect("write");
        }
    };
    leave();
    f.store
        .update(&stored.revision, &stored.record)
        .expect("update");
    leave();
    f.store.delete(&stored.record.id).expect("delete");
    assert!(!f.root.join("web").exists());
}

#[test]
fn what_a_killed_creation_left_is_removed_by_the_next_list_while_a_live_one_is_left_alone() {
    let f = fixture();
    f.with_record("other");
    let folder = |name: &str| f.root.join(name);
    for (name, files) in [
        ("created", &[".state.json.new", ".pid.new"][..]),
        ("deleted", &[".state.json.deleted", "pid"]),
        ("engines", &[".state.json.new", "theirs"]),
        ("making", &[".state.json.new"]),
        ("theirs", &["theirs"]),
        ("empty", &[]),
    ] {
        fs::create_dir(folder(name)).expect("mkdir");
        for file in files {
            fs::write(folder(name).join(file), "half").expect("write");
        }
    }
    symlink(folder("engines"), folder("link")).expect("symlink");
    let maker = fs::File::open(folder("making")).expect("open");
    reaper_state::lock_exclusive(&maker).expect("as a creation that is under way");

    assert_eq!(f.store.list().expect("list"), [id("other")]);
    assert!(!folder("created").exists() && !folder("deleted").exists());
    assert!(folder("making/.state.json.new").exists(), "its maker lives");
    assert!(!folder("engines/.state.json.new").exists());
    assert!(folder("engines/theirs").exists(), "not the store's");
    assert!(folder("theirs/theirs").exists() && folder("empty").exists());

    // Its maker is killed.
    drop(maker);
    assert_eq!(f.store.list().expect("list"), [id("other")]);
    assert!(!folder("making").exists());
}

#[test]
fn list_ignores_entries_that_are_not_containers() {
    let f = fixture();
    f.with_record("web");
    for name in ["ns", "overlay", ".hidden", "with space"] {
        fs::create_dir(f.root.join(name)).expect("mkdir");
        fs::copy(f.state("web"), f.state(name)).expect("copy");
    }
    fs::write(f.root.join("file"), "").expect("write");
    assert_eq!(f.store.list().expect("list"), [id("web")]);
    assert!(matches!(
        f.store.get(&id("file")),
        Err(Error::NotFound { .. })
    ));
    let answer = f.store.create(&record("file"));
    assert!(matches!(answer, Err(Error::Io { .. })), "{answer:?}");
}

#[test]
fn a_bundle_that_json_cannot_hold_is_refused() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let f = fixture();
    let web = Record::new(id("web"), OsStr::from_bytes(b"/\xff").into());
    let answer = f.store.create(&web);
    assert!(matches!(answer, Err(Error::Encode { .. })), "{answer:?}");
    assert!(!f.root.join("web").exists(), "nothing is left");
}

use std::{fs, os::unix::fs::PermissionsExt, thread};

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect()
}

#[test]
fn atomic_write_replaces_file_with_mode_0600() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("exit.json");
    for contents in ["a longer one", "short", ""] {
        write_atomic(&path, contents.as_bytes()).expect("write");
        assert_eq!(fs::read_to_string(&path).expect("read"), contents);
    }
    let mode = fs::metadata(&path).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(names(folder.path()), ["exit.json"]);
}

#[test]
fn a_link_is_replaced_and_not_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, target) = (
        folder.path().join("exit.json"),
        folder.path().join("target"),
    );
    std::os::unix::fs::symlink(&target, &path).expect("symlink");
    write_atomic(&path, b"new").expect("write");
    assert!(!path.is_symlink() && !target.exists());
}

#[test]
fn failed_atomic_write_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("taken");
    fs::create_dir(&path).expect("mkdir");
    assert!(
        write_atomic(&path, b"new").is_err(),
        "a folder is not replaced"
    );
    assert!(path.is_dir());
    assert_eq!(names(folder.path()), ["taken"]);
    assert!(write_atomic(&folder.path().join("no/folder"), b"").is_err());
    assert!(write_atomic(Path::new("/"), b"").is_err());
}

#[test]
fn concurrent_atomic_writes_leave_one_whole_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    thread::scope(|scope| {
        for number in 0..8_u8 {
            let path = &path;
            scope.spawn(move || {
                (0..20).for_each(|_| write_atomic(path, &[number; 10_000]).expect("write"));
            });
        }
    });
    let left = fs::read(&path).expect("read");
    assert!(left.len() == 10_000 && left.iter().all(|byte| *byte == left[0]));
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn create_dir_all_is_repeatable_with_mode_0711() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a/b/c");
    for _ in 0..2 {
        create_dir_all(&path).expect("make");
    }
    for made in [folder.path().join("a"), path] {
        let mode = fs::metadata(made).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o711);
    }
}

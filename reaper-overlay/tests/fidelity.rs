//! What of a file reaches the host by a commit, and an archive: as `cp -a` and GNU tar keep it.

mod common;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use common::*;
use reaper_overlay::FlawReason;
use reaper_spec::{Mount, OverlayScope};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr,
    lsetxattr, makedev, mknodat, utimensat,
};

/// One file, with all that is to be kept of it.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    modified: (i64, i64),
    content: Vec<u8>,
    /// The first of its names.
    first: PathBuf,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether it takes far less space than it is long.
    has_holes: bool,
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = llistxattr(path, names.as_mut_slice()).unwrap();
    let names = names[..length].split(|&byte| byte == 0);
    let mut found = BTreeMap::new();
    for name in names.filter(|name| !name.is_empty()) {
        let mut value = vec![0; 4096];
        let length = lgetxattr(path, OsStr::from_bytes(name), value.as_mut_slice()).unwrap();
        found.insert(name.to_vec(), value[..length].to_vec());
    }
    found
}

fn kept(root: &Path) -> BTreeMap<PathBuf, Kept> {
    let mut found = BTreeMap::new();
    let mut firsts = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mut content = Vec::new();
        if metadata.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            below.sort();
            below.reverse();
            todo.append(&mut below);
        } else if metadata.is_symlink() {
            content = fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .as_bytes()
                .to_vec();
        } else if metadata.is_file() {
            content = fs::read(&path).unwrap();
        }
        let relative = path.strip_prefix(root).unwrap().to_owned();
        let first = firsts
            .entry(metadata.ino())
            .or_insert(relative.clone())
            .clone();
        let kept = Kept {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            device: metadata.rdev(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            first,
            xattrs: xattrs(&path),
            has_holes: metadata.is_file() && metadata.blocks() * 512 < metadata.len() / 2,
        };
        found.insert(relative, kept);
    }
    found
}

fn set_modified(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Of the owner, a user, the owning group, the mask and all others.
fn acl() -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    for (tag, bits, id) in [
        (1u16, 6u16, none),
        (2, 6, 1234),
        (4, 4, none),
        (16, 6, none),
        (32, 0, none),
    ] {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Files of which a careless copy loses something.
fn make(model: &Path) {
    let at = |name: &str| model.join(name);
    let set = |name: &str, attribute: &str, value: &[u8]| {
        lsetxattr(at(name), attribute, value, XattrFlags::empty()).unwrap();
    };
    fs::create_dir(model).unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"in the middle", 20 << 20).unwrap();
    sparse.set_len(40 << 20).unwrap();
    let hole = File::create(at("only a hole")).unwrap();
    hole.set_len(5_000_000).unwrap();
    for name in [
        "old",
        "fraction",
        "far",
        "setuid",
        "acl",
        "attributes",
        "one",
        &"long".repeat(50),
    ] {
        fs::write(at(name), name).unwrap();
    }
    set_modified(&at("old"), -315_619_200, 0);
    set_modified(&at("fraction"), -2, 250_000_000);
    set_modified(&at("far"), 1 << 33, 1);
    std::os::unix::fs::lchown(at("setuid"), Some(12), Some(3_000_000_000)).unwrap();
    fs::set_permissions(at("setuid"), fs::Permissions::from_mode(0o6711)).unwrap();
    set("acl", "system.posix_acl_access", &acl());
    set("attributes", "trusted.odd=name%", b"\0value=\n");
    // cap_net_raw, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set("attributes", "security.capability", &capability);
    fs::hard_link(at("one"), at("two")).unwrap();
    symlink("/no/such", at("link")).unwrap();
    fs::hard_link(at("link"), at("other link")).unwrap();
    set_modified(&at("link"), 1_000_000, 5);
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("folder").join(OsStr::from_bytes(b"\xff")), "").unwrap();
    fs::write(at("folder").join(OsStr::from_bytes(b"\xfe")), "").unwrap();
    fs::set_permissions(at("folder"), fs::Permissions::from_mode(0o2755)).unwrap();
    set("folder", "system.posix_acl_default", &acl());
    for (name, kind) in [
        ("fifo", FileType::Fifo),
        ("device", FileType::CharacterDevice),
    ] {
        mknodat(CWD, at(name), kind, Mode::RWXU, makedev(1, 3)).unwrap();
    }
    set_modified(&at("folder"), 1_000_000_000, 123_456_789);
    set_modified(model, 1_000_000_001, 1);
}

#[track_caller]
fn expect_same(found: &Path, model: &Path) {
    let (found, model) = (kept(found), kept(model));
    assert!(found.keys().eq(model.keys()), "{:?}", found.keys());
    for (path, is) in &found {
        let should = &model[path];
        let mut lengths = [is, should].map(|kept| kept.content.len());
        lengths.sort();
        if lengths[1] > 1000 {
            assert!(is.content == should.content, "{path:?}");
            assert_eq!(
                (is.has_holes, is.modified),
                (should.has_holes, should.modified),
                "{path:?}"
            );
        } else {
            assert_eq!(is, should, "{path:?}");
        }
    }
}

#[test]
fn a_commit_and_an_archive_keep_all_that_cp_and_tar_keep() {
    isolated(|dir| {
        let (model, data, out) = (dir.join("model"), dir.join("data"), dir.join("out"));
        make(&model);
        fs::create_dir(&data).unwrap();
        fs::create_dir(&out).unwrap();
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        let script = format!("cp -a {} {}/new", model.display(), data.display());
        sh(&session, &script);
        let (overlays, scope) = overlays(&request);

        let tar = overlays
            .export_diff(&scope, Vec::new(), &mut |_| ())
            .unwrap();
        assert_eq!(tar.flaws, []);
        assert!(
            tar.out.len() < 1 << 20,
            "holes are not in the archive: {}",
            tar.out.len()
        );
        let archive = dir.join("archive.tar");
        fs::write(&archive, &tar.out).unwrap();
        let options = ["-x", "-p", "--xattrs", "--xattrs-include=*", "--acls", "-C"];
        let last = [out.to_str().unwrap(), "-f", archive.to_str().unwrap()];
        tool("tar", &[&options[..], &last].concat());
        let new = data.join("new");
        expect_same(&out.join(new.strip_prefix("/").unwrap()), &model);

        apply(&overlays, &scope, &data).unwrap();
        expect_same(&new, &model);
        assert!(overlays.diff(&scope, &mut |_| ()).unwrap().is_empty());
    });
}

#[test]
fn what_an_archive_cannot_hold_is_named_and_left_out() {
    isolated(|dir| {
        let data = dir.join("data");
        fs::create_dir(&data).unwrap();
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        // A socket that is linked to twice: an archive must not have a link to what it lacks.
        let socket = dir.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let script = format!(
            "cd {}; cp -a {} one; ln one two; mkdir .wh.folder; echo x >.wh.folder/in; echo x >.wh.file; \
             echo good >good",
            data.display(),
            socket.display()
        );
        sh(&session, &script);
        let (overlays, scope) = overlays(&request);
        let tar = overlays
            .export_diff(&scope, Vec::new(), &mut |_| ())
            .unwrap();
        let flaws: Vec<_> = tar
            .flaws
            .iter()
            .map(|flaw| {
                (
                    flaw.path.strip_prefix(&data).unwrap().to_owned(),
                    flaw.reason,
                )
            })
            .collect();
        let flaw = |name: &str, reason| (PathBuf::from(name), reason);
        assert_eq!(
            flaws,
            [
                flaw(".wh.file", FlawReason::Name),
                flaw(".wh.folder", FlawReason::Name),
                flaw("one", FlawReason::Socket),
                flaw("two", FlawReason::Socket),
            ]
        );
        let mut archive = tar::Archive::new(tar.out.as_slice());
        let names: Vec<OsString> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().into_owned())
            .filter_map(|path| Some(path.strip_prefix(data.strip_prefix("/").ok()?).ok()?.into()))
            .collect();
        assert_eq!(names, ["", "good"]);
    });
}

#[test]
fn names_that_are_not_utf_8_are_told_apart() {
    isolated(|dir| {
        let data = dir.join("data");
        fs::create_dir(&data).unwrap();
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        let script = format!(
            "cd {}; touch \"$(printf 'a\\376')\" \"$(printf 'a\\377')\"",
            data.display()
        );
        sh(&session, &script);
        let (overlays, scope) = overlays(&request);
        let changes = overlays.diff(&scope, &mut |_| ()).unwrap();
        let shown: Vec<_> = changes.iter().map(ToString::to_string).collect();
        let expected = ["\\xfe", "\\xff"].map(|name| format!("A {}/a{name}", data.display()));
        assert_eq!(shown, expected);
        let json = serde_json::to_value(&changes[1]).unwrap();
        assert_eq!(json["path"].as_str(), shown[1].strip_prefix("A "));
        let bytes = json["path_bytes"].as_array().unwrap();
        assert_eq!(bytes.last().unwrap(), 255);
    });
}

#[test]
fn a_changed_mode_of_a_mounts_own_directory_is_seen() {
    isolated(|dir| {
        let disk = dir.join("disk");
        mount_tmpfs(&disk);
        fs::write(disk.join("file"), "").unwrap();
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        let (overlays, scope) = overlays(&request);
        let shown = || shown(&overlays, &scope);
        assert_eq!(shown(), [] as [&str; 0]);
        sh(
            &session,
            &format!("chmod 400 {} /; touch {0}/new", disk.display()),
        );
        let disk_shown = disk.display();
        let expected = [
            "P /".to_owned(),
            format!("P {disk_shown}"),
            format!("A {disk_shown}/new"),
        ];
        assert_eq!(shown(), expected);
        let tar = overlays
            .export_diff(&scope, Vec::new(), &mut |_| ())
            .unwrap();
        let mut archive = tar::Archive::new(tar.out.as_slice());
        let modes: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (
                    entry.path().unwrap().into_owned(),
                    entry.header().mode().unwrap(),
                )
            })
            .collect();
        assert_eq!(modes[0], (PathBuf::from("./"), 0o400));
        assert!(
            modes.contains(&(disk.strip_prefix("/").unwrap().to_owned(), 0o400)),
            "{modes:?}"
        );
        apply(&overlays, &scope, &disk).unwrap();
        assert_eq!(fs::metadata(&disk).unwrap().mode() & 0o7777, 0o400);
        assert!(disk.join("new").exists());
        assert_eq!(shown(), ["P /"]);
        session.close().unwrap();
        overlays.reset(&scope).unwrap();
        let session = open(&request);
        assert_eq!(shown(), [] as [&str; 0]);
        drop(session);
    });
}

#[test]
fn mount_points_of_live_containers_are_no_changes() {
    isolated(|dir| {
        let source = dir.join("source");
        fs::create_dir(&source).unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        let point = |name: &str| Mount {
            destination: dir.join(name),
            source: Some(source.clone()),
            typ: None,
            options: vec!["bind".to_owned()],
        };
        request.mounts = vec![point("made/deep/one"), point("made/two")];
        let session = open(&request);
        let (overlays, scope) = overlays(&request);
        let shown = || -> Vec<_> {
            let changes = overlays.diff(&scope, &mut |_| ()).unwrap();
            let text = |change: &reaper_overlay::Change| change.to_string();
            changes
                .iter()
                .map(text)
                .map(|text| text.replace(dir.to_str().unwrap(), ""))
                .collect()
        };
        assert_eq!(shown(), [] as [&str; 0]);
        let tar = overlays
            .export_diff(&scope, Vec::new(), &mut |_| ())
            .unwrap();
        assert_eq!(tar.out, [0; 1024], "an empty archive");
        // Until something is kept there.
        sh(
            &session,
            &format!("echo x >{}/made/deep/file", dir.display()),
        );
        assert_eq!(shown(), ["A /made", "A /made/deep", "A /made/deep/file"]);
        session.close().unwrap();
    });
}

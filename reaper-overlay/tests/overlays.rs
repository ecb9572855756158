//! Seeing and undoing what was written.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use common::*;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use reaper_overlay::{
    ApplyMode, ChangeKind, Error, Keep, Scope, Session, SharedOverlay, ViewRequest,
};
use reaper_spec::{Mount, OverlayScope};

fn changes(request: &ViewRequest, below: &Path) -> Vec<(ChangeKind, PathBuf)> {
    let (overlays, scope) = overlays(request);
    let changes = overlays.diff(&scope, &mut |_| ()).unwrap();
    changes
        .into_iter()
        .filter_map(|change| {
            let path = change.path.strip_prefix(below).ok()?.to_owned();
            (!path.as_os_str().is_empty()).then_some((change.kind, path))
        })
        .collect()
}

/// Everything below `root`: type, mode, content.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if metadata.is_file() {
                fs::read(&path).unwrap()
            } else {
                todo.push(path.clone());
                Vec::new()
            };
            let mode = metadata.mode();
            let key = path.strip_prefix(root).unwrap().to_owned();
            found.insert(key, (mode & 0o170_000, mode & 0o7777, content));
        }
    }
    found
}

/// The differences as somebody would find them who has both trees.
fn naive(
    before: &BTreeMap<PathBuf, (u32, u32, Vec<u8>)>,
    after: &BTreeMap<PathBuf, (u32, u32, Vec<u8>)>,
) -> Vec<(ChangeKind, PathBuf)> {
    let is_dir = |tree: &BTreeMap<PathBuf, (u32, u32, Vec<u8>)>, path: &Path| {
        path.as_os_str().is_empty() || tree.get(path).is_some_and(|entry| entry.0 == 0o040_000)
    };
    let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for path in paths {
        let parent = path.parent().unwrap();
        let was_below = is_dir(before, parent);
        let kind = match (before.get(path), after.get(path)) {
            (Some(_), None) if is_dir(after, parent) => ChangeKind::Deleted,
            (Some(_), None) => continue,
            (Some(old), Some(new)) if was_below => match () {
                () if old.0 != new.0 => ChangeKind::TypeChanged,
                () if old.2 != new.2 => ChangeKind::Modified,
                () if old.1 != new.1 => ChangeKind::AttributesChanged,
                () => continue,
            },
            _ => ChangeKind::Added,
        };
        found.push((kind, path.clone()));
    }
    found
}

fn name() -> impl Strategy<Value = String> {
    "[abc](/[abc]){0,2}"
}

fn operation() -> impl Strategy<Value = String> {
    prop_oneof![
        (name(), "[xyz]{0,3}").prop_map(|(name, text)| format!("echo {text} >{name}")),
        (name(), "[xyz]").prop_map(|(name, text)| format!("echo {text} >>{name}")),
        name().prop_map(|name| format!("rm -rf {name}")),
        name().prop_map(|name| format!("mkdir -p {name}")),
        name().prop_map(|name| format!("rm -rf {name}; mkdir {name}")),
        (name(), name()).prop_map(|(from, to)| format!("mv -T {from} {to}")),
        (name(), name()).prop_map(|(from, to)| format!("test -f {from} && cp -aT {from} {to}")),
        (name(), name()).prop_map(|(to, name)| format!("ln -sfn {to} {name}")),
        (name(), 0u32..8)
            .prop_map(|(name, bits)| format!("test -L {name} || chmod 75{bits} {name}")),
        name().prop_map(|name| format!("cat {name} >/tmp-copy && cat /tmp-copy >{name}")),
    ]
}

#[test]
fn diff_and_commit_agree_with_a_naive_model() {
    isolated(|dir| {
        let mut runner = TestRunner::new(Config::default());
        let script = proptest::collection::vec(operation(), 1..25);
        let cases: Vec<(PathBuf, String, String)> = (0..30)
            .map(|number| {
                let mut scripts = (0..2).map(|_| {
                    let script = script.new_tree(&mut runner).unwrap().current();
                    format!("exec 2>/dev/null\n{}\ntrue", script.join("\n"))
                });
                let (setup, script) = (scripts.next().unwrap(), scripts.next().unwrap());
                (dir.join(format!("case-{number}")), setup, script)
            })
            .collect();
        let plain = |at: &Path, script: &str| {
            let script = script.replace("/tmp-copy", dir.join("tmp-copy").to_str().unwrap());
            fs::create_dir_all(at).unwrap();
            let status = Command::new("sh")
                .args(["-c", &script])
                .current_dir(at)
                .status();
            assert!(status.unwrap().success());
        };
        for (case, setup, _) in &cases {
            plain(&case.join("data"), setup);
        }
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        for (case, _, script) in &cases {
            let (data, model) = (case.join("data"), case.join("model"));
            tool(
                "cp",
                &["-a", data.to_str().unwrap(), model.to_str().unwrap()],
            );
            plain(&model, script);
            sh(&session, &format!("cd {}; {script}", data.display()));
        }
        let (overlays, scope) = overlays(&request);
        for (case, setup, script) in &cases {
            let (data, model) = (case.join("data"), case.join("model"));
            let (before, after) = (snapshot(&data), snapshot(&model));
            let shown = format!("{setup}\n---\n{script}");
            assert_eq!(changes(&request, &data), naive(&before, &after), "{shown}");
            overlays
                .apply_to_host(
                    &scope,
                    std::slice::from_ref(&data),
                    ApplyMode::DryRun,
                    &mut |_| (),
                )
                .unwrap();
            assert_eq!(snapshot(&data), before, "a dry run");
            apply(&overlays, &scope, &data).unwrap();
            assert_eq!(snapshot(&data), after, "{shown}");
            assert_eq!(changes(&request, &data), [], "{shown}");
        }
    });
}

#[test]
fn diff_lists_deleted_files_below_recreated_directory() {
    isolated(|dir| {
        let data = dir.join("data");
        fs::create_dir_all(data.join("a/b/c")).unwrap();
        fs::write(data.join("a/b/c/old"), "x").unwrap();
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        let cd = format!("cd {}; ", data.display());
        sh(&session, &(cd + "rm -r a; mkdir -p a/b/c"));
        let deleted = (ChangeKind::Deleted, PathBuf::from("a/b/c/old"));
        assert_eq!(changes(&request, &data), [deleted]);
    });
}

#[test]
fn a_diff_shows_kinds_and_text() {
    isolated(|dir| {
        let data = dir.join("data");
        fs::create_dir_all(data.join("folder")).unwrap();
        fs::write(data.join("text"), "one\ntwo\n").unwrap();
        fs::write(data.join("script"), "x").unwrap();
        fs::write(data.join("folder/gone"), "x").unwrap();
        symlink("text", data.join("link")).unwrap();
        let request = request(dir, "a", OverlayScope::Group("g".to_owned()));
        let session = open(&request);
        let cd = format!("set -e; cd {}; ", data.display());
        sh(
            &session,
            &(cd + "echo three >>text; chmod 700 script; rm -r folder; rm link; mkdir link; \
                    printf '\\0' >binary; touch text"),
        );
        let (overlays, scope) = overlays(&request);
        let mut seen = 0;
        let changes = overlays
            .diff(&scope, &mut |progress| seen = progress.files)
            .unwrap();
        assert!(seen >= 6);
        let shown: Vec<_> = changes
            .iter()
            .map(|change| change.to_string().replace(data.to_str().unwrap(), ""))
            .collect();
        assert_eq!(
            shown,
            ["A /binary", "D /folder", "T /link", "P /script", "M /text"]
        );
        let text = changes[4].text().unwrap().unwrap();
        assert!(text.contains(" two\n+three\n"), "{text}");
        assert_eq!(changes[0].text().unwrap(), None);
        let json = serde_json::to_value(&changes[3]).unwrap();
        assert_eq!(json["kind"], "attributes");
        assert_eq!(serde_json::to_value(changes[2].kind).unwrap(), "type");
        assert_eq!(json["after"]["mode"], 0o700);
    });
}

#[test]
fn an_export_is_an_image_layer() {
    isolated(|dir| {
        let data = dir.join("data");
        fs::create_dir_all(data.join("folder")).unwrap();
        fs::write(data.join("folder/old"), "x").unwrap();
        fs::write(data.join("gone"), "x").unwrap();
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        let cd = format!("set -e; cd {}; ", data.display());
        sh(
            &session,
            &(cd + "rm gone; rm -r folder; mkdir folder; echo new >folder/new; ln folder/new hard; \
                    ln -s hard soft; mkfifo fifo; chmod 4711 hard"),
        );
        let (overlays, scope) = overlays(&request);
        let tar = overlays
            .export_diff(&scope, Vec::new(), &mut |_| ())
            .unwrap();
        let prefix = data.strip_prefix("/").unwrap().to_owned();
        let mut names = Vec::new();
        assert_eq!(tar.flaws, []);
        for entry in tar::Archive::new(tar.out.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            let Ok(name) = path.strip_prefix(&prefix) else {
                continue;
            };
            let kind = entry.header().entry_type();
            if name == Path::new("folder/new") {
                assert_eq!(entry.header().mode().unwrap(), 0o4711);
                let mut text = String::new();
                std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
                assert_eq!(text, "new\n");
            }
            names.push(format!("{} {kind:?}", name.display()));
        }
        names.sort();
        assert_eq!(
            names,
            [
                " Directory",
                ".wh.gone Regular",
                "fifo Fifo",
                "folder Directory",
                "folder/.wh..wh..opq Regular",
                "folder/new Regular",
                "hard Link",
                "soft Symlink",
            ]
        );
    });
}

#[test]
fn a_scope_in_use_is_not_reset() {
    isolated(|dir| {
        let request = request(dir, "try1", OverlayScope::Container);
        let (overlays, scope) = overlays(&request);
        assert!(overlays.list().unwrap().is_empty());
        assert!(!dir.join("base").exists(), "looking makes nothing");
        assert!(matches!(
            overlays.reset(&scope),
            Err(Error::ScopeNotFound { .. })
        ));
        let session = open(&request);
        sh(&session, "head -c 100000 /dev/urandom >/mark");
        let listed = &overlays.list().unwrap()[0];
        assert_eq!(
            (listed.scope.as_str(), &*listed.members),
            ("container-try1", &["try1".to_owned()][..])
        );
        assert!(listed.locked && listed.mounted && listed.changed_below.is_empty());
        assert!(overlays.disk_usage(&scope, &mut |_| ()).unwrap().bytes >= 100_000);
        for error in [overlays.reset(&scope), overlays.remove(&scope)] {
            let error = error.unwrap_err();
            assert_eq!(
                error.to_string(),
                "the scope container-try1 is in use by try1"
            );
        }
        session.close().unwrap();
        overlays.reset(&scope).unwrap();
        let session = open(&request);
        assert!(!attempt(&session, "test -e /mark").status.success());
        session.close().unwrap();
        overlays.remove(&scope).unwrap();
        assert!(overlays.list().unwrap().is_empty());
        for part in ["scopes", "live/scopes", "live/changing", "live/members"] {
            let left = fs::read_dir(dir.join("base").join(part)).unwrap();
            assert_eq!(left.count(), 0, "{part}");
        }
    });
}

#[test]
fn unused_scopes_are_collected() {
    isolated(|dir| {
        let of = |id: &str| request(dir, id, OverlayScope::Container);
        for id in ["one", "two", "three"] {
            open(&of(id)).close().unwrap();
        }
        let used = open(&of("used"));
        let (overlays, _) = overlays(&of("one"));
        let none = Keep {
            age: Some(Duration::from_secs(3600)),
            count: Some(3),
        };
        assert_eq!(overlays.prune(none).unwrap(), []);
        let by_count = overlays
            .prune(Keep {
                count: Some(1),
                age: None,
            })
            .unwrap();
        assert_eq!(
            by_count,
            ["two", "one"].map(|id| Scope::container(id).unwrap())
        );
        overlays
            .prune(Keep {
                age: Some(Duration::ZERO),
                count: None,
            })
            .unwrap();
        let left: Vec<_> = overlays
            .list()
            .unwrap()
            .into_iter()
            .map(|info| info.scope)
            .collect();
        assert_eq!(left, [Scope::container("used").unwrap()]);
        drop(used);
    });
}

#[test]
fn apply_to_host_refuses_masked_paths() {
    isolated(|dir| {
        let data = dir.join("data");
        fs::create_dir_all(data.join("keys")).unwrap();
        fs::write(data.join("keys/secret"), "node's").unwrap();
        fs::write(data.join("plain"), "node's").unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        request.overlay.masks.add = vec![data.join("keys").to_str().unwrap().to_owned()];
        let session = open(&request);
        sh(
            &session,
            &format!("cd {}; echo x >keys/secret; echo x >plain", data.display()),
        );
        let (overlays, scope) = overlays(&request);
        let apply = |path: &Path| apply(&overlays, &scope, path);
        assert!(matches!(apply(&data), Err(Error::Masked { .. })));
        assert_eq!(
            fs::read_to_string(data.join("keys/secret")).unwrap(),
            "node's"
        );
        assert_eq!(
            fs::read_to_string(data.join("plain")).unwrap(),
            "node's",
            "nothing was done"
        );
        apply(&data.join("plain")).unwrap();
        assert_eq!(fs::read_to_string(data.join("plain")).unwrap(), "x\n");
    });
}

#[test]
fn list_reports_host_mounts_changed_below_scope() {
    isolated(|dir| {
        mount_tmpfs(&dir.join("disk"));
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        let (overlays, _) = overlays(&request);
        assert!(overlays.list().unwrap()[0].changed_below.is_empty());
        mount_tmpfs(&dir.join("disk"));
        let changed = &overlays.list().unwrap()[0].changed_below;
        assert_eq!(*changed, [dir.join("disk").to_str().unwrap()]);
        drop(session);
    });
}

#[test]
fn scope_in_persistent_base_survives_reboot() {
    isolated(|dir| {
        mount_ext4(&dir.join("image"), &dir.join("disk"));
        let mut request = request(dir, "a", OverlayScope::Node);
        request.overlay.base = dir.join("disk/base");
        let session = open(&request);
        sh(&session, "echo kept >/mark");
        session.close().unwrap();
        // A reboot: all mounts of the base are gone, its directory stays.
        let lazily = rustix::mount::UnmountFlags::DETACH;
        let base = &request.overlay.base;
        rustix::mount::unmount(base.join("live"), lazily).unwrap();
        let (overlays, scope) = overlays(&request);
        assert!(!overlays.list().unwrap()[0].mounted);
        let diff = overlays.diff(&scope, &mut |_| ()).unwrap();
        assert!(diff.iter().any(|change| change.path == Path::new("/mark")));
        assert_eq!(sh(&open(&request), "cat /mark"), "kept");
    });
}

/// Replaces the version in the JSON file `path`, if it has one, and adds what a newer version may.
fn set_version(path: &Path, version: Option<u32>) {
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let object = value.as_object_mut().unwrap();
    object.remove("version");
    if let Some(version) = version {
        object.clear();
        object.insert("version".to_owned(), version.into());
    }
    fs::write(path, value.to_string()).unwrap();
}

#[track_caller]
fn expect_newer<T>(result: Result<T, Error>, file: &Path) {
    let error = result.err().expect("a newer file was read");
    assert!(
        matches!(&error, Error::Newer { path, found: 2, known: 1 } if path == file),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains("version 2") && text.contains("up to 1"),
        "{text}"
    );
}

#[test]
fn files_of_a_newer_version_are_refused_by_name() {
    isolated(|dir| {
        mount_tmpfs(&dir.join("data"));
        let mut request = request(dir, "newer", OverlayScope::Container);
        let volume = Mount {
            destination: dir.join("data/point"),
            source: Some("/etc".into()),
            typ: None,
            options: vec!["bind".to_owned()],
        };
        request.mounts.push(volume);
        let session = open(&request);
        let (overlays, scope) = overlays(&request);
        let points = request.overlay.base.join("mount-points.json");
        let layers = request
            .overlay
            .base
            .join(format!("scopes/{scope}/layers.json"));

        // It had no version at first, and is the same but for that.
        set_version(&points, None);
        let mut other = request.clone();
        other.id = "other".parse().unwrap();
        open(&other).close().unwrap();

        let (written, table) = (fs::read(&points).unwrap(), fs::read(&layers).unwrap());
        set_version(&points, Some(2));
        expect_newer(Session::open(&SharedOverlay::new(), &other), &points);
        fs::write(&points, written).unwrap();

        set_version(&layers, Some(2));
        expect_newer(Session::open(&SharedOverlay::new(), &request), &layers);
        expect_newer(overlays.list(), &layers);
        expect_newer(overlays.diff(&scope, &mut |_| ()), &layers);
        fs::write(&layers, table).unwrap();
        session.close().unwrap();
    });
}

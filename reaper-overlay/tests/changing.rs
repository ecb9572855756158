//! Archives and commits of a scope whose containers change it meanwhile, and of the host.

mod common;

use std::{
    fs,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
};

use common::*;
use reaper_overlay::{
    ApplyMode, Change, Error, FlawReason, Overlays, Progress, Recovery, Scope, Session,
};
use reaper_spec::OverlayScope;

const SECRET: &str = "the node's secret";

/// A scope in whose view, below `dir`, `data/d` is a directory and `data/l` a symlink to a directory
/// of the host that has a file of the same name and length.
struct Swapped {
    data: PathBuf,
    session: Session,
    overlays: Overlays,
    scope: Scope,
}

impl Swapped {
    fn new(dir: &Path) -> Self {
        let (data, secrets) = (dir.join("data"), dir.join("secrets"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&secrets).unwrap();
        fs::write(secrets.join("key"), SECRET).unwrap();
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        let script = format!(
            "cd {}; mkdir d; head -c 300000 /dev/zero >d/a; head -c {} /dev/zero >d/key; ln -s {} l",
            data.display(),
            SECRET.len(),
            secrets.display()
        );
        sh(&session, &script);
        let (overlays, scope) = overlays(&request);
        Self {
            data,
            session,
            overlays,
            scope,
        }
    }

    fn swap(&self) {
        let script = format!("cd {}; mv -T d e && mv -T l d", self.data.display());
        sh(&self.session, &script);
    }
}

/// Writes to a vector, and calls a function once after some bytes.
struct Interrupted<'a> {
    bytes: Vec<u8>,
    after: usize,
    then: Option<Box<dyn FnOnce() + 'a>>,
}

impl Write for Interrupted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend(bytes);
        if self.bytes.len() > self.after
            && let Some(then) = self.then.take()
        {
            then();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_archive_has_nothing_of_what_a_directory_is_swapped_for() {
    isolated(|dir| {
        let swapped = Swapped::new(dir);
        let out = Interrupted {
            bytes: Vec::new(),
            after: 100_000,
            then: Some(Box::new(|| swapped.swap())),
        };
        let exported = swapped
            .overlays
            .export_diff(&swapped.scope, out, &mut |_| ())
            .unwrap();
        assert!(exported.out.then.is_none(), "it was swapped");
        let text = String::from_utf8_lossy(&exported.out.bytes);
        assert!(!text.contains(SECRET));
        assert!(text.contains("data/d/key"), "the file itself is there");
    });
}

#[test]
fn a_commit_has_nothing_of_what_a_directory_is_swapped_for_and_names_it() {
    isolated(|dir| {
        let swapped = Swapped::new(dir);
        let d = swapped.data.join("d");
        let mut done = false;
        let result = swapped.overlays.apply_to_host(
            &swapped.scope,
            std::slice::from_ref(&d),
            ApplyMode::Apply,
            &mut |seen| {
                if seen.path.ends_with("a") && !std::mem::replace(&mut done, true) {
                    swapped.swap();
                }
            },
        );
        match result {
            Err(Error::Changed { path }) => assert!(path.starts_with(&d), "{path:?}"),
            other => panic!("{other:?}"),
        }
        assert!(!d.exists());
        expect_nothing_beside(&swapped.data);
    });
}

#[test]
fn a_file_that_becomes_a_fifo_holds_up_neither_diff_nor_archive_nor_commit() {
    isolated(|dir| {
        let swapped = Swapped::new(dir);
        let script = format!("cd {}; rm d/key; mkfifo d/key", swapped.data.display());
        let mut done = false;
        let exported = swapped
            .overlays
            .export_diff(&swapped.scope, Vec::new(), &mut |seen| {
                if seen.path.ends_with("d/key") && !std::mem::replace(&mut done, true) {
                    sh(&swapped.session, &script);
                }
            });
        // It is the file that was looked at, though it was deleted meanwhile.
        assert_eq!(exported.unwrap().flaws[0].reason, FlawReason::Changed);
        let diff = |seen: Progress<'_>| assert!(!seen.path.as_os_str().is_empty());
        swapped
            .overlays
            .diff(&swapped.scope, &mut { diff })
            .unwrap();
        apply(&swapped.overlays, &swapped.scope, &swapped.data.join("d")).unwrap();
        use std::os::unix::fs::FileTypeExt;
        let kind = fs::symlink_metadata(swapped.data.join("d/key")).unwrap();
        assert!(kind.file_type().is_fifo());
    });
}

/// No staging directory is left on the filesystem of `data`, a directory in its root.
#[track_caller]
fn expect_nothing_beside(data: &Path) {
    for dir in data.ancestors().take(2) {
        for entry in fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap_or_default();
            assert!(!name.starts_with(".reaper-commit"), "{dir:?}/{name}");
        }
    }
}

/// All below `root` as one text.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in fingerprint(root) {
        // Without the inode and the times of directories, which a rename changes.
        let fields: Vec<_> = path.split_whitespace().collect();
        found.push(format!("{} {} {:?}", fields[0], fields[2], &fields[7..]));
    }
    found
}

/// A scope with changes of every kind below `data`.
fn changed_in_every_way(dir: &Path) -> (PathBuf, Overlays, Scope, Session) {
    let data = dir.join("data");
    fs::create_dir_all(data.join("gone/deep")).unwrap();
    fs::create_dir_all(data.join("mode")).unwrap();
    for name in ["changed", "removed", "type", "gone/deep/file", "mode/file"] {
        fs::write(data.join(name), name).unwrap();
    }
    let request = request(dir, "a", OverlayScope::Node);
    let session = open(&request);
    let script = format!(
        "cd {}; echo new >changed; rm removed; rm type; mkdir type; echo x >type/x; rm -r gone; \
         chmod 700 mode; echo y >mode/new; mkdir -p added/deep; echo z >added/deep/z; ln added/deep/z hard",
        data.display()
    );
    sh(&session, &script);
    let (overlays, scope) = overlays(&request);
    (data, overlays, scope, session)
}

#[test]
fn a_commit_that_is_killed_at_any_point_is_finished_or_undone_by_the_next_call() {
    isolated(kill_at_any_point);
}

#[test]
fn so_it_is_where_two_files_cannot_be_exchanged() {
    isolated(|dir| {
        // As a filesystem that lacks it, and a filter of system calls that knows none but rename(2).
        kernel::refuse(&[nix::libc::SYS_renameat2], nix::libc::EINVAL);
        kill_at_any_point(dir);
    });
}

fn kill_at_any_point(dir: &Path) {
    let (data, overlays, scope, _session) = changed_in_every_way(dir);
    let model = dir.join("model");
    let copy = |from: &Path, to: &Path| {
        tool("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
    };
    copy(&data, &model);
    let before = tree(&data);
    let mut after = None;
    let mut finished = [0, 0];
    for stop in 0.. {
        let mut steps = 0;
        let call = catch_unwind(AssertUnwindSafe(|| {
            let mode = ApplyMode::Apply;
            overlays.apply_to_host(&scope, std::slice::from_ref(&data), mode, &mut |_| {
                if steps == stop {
                    // Without a message.
                    resume_unwind(Box::new("killed"));
                }
                steps += 1;
            })
        }));
        let is_done = call.is_ok();
        if let Ok(result) = call {
            result.unwrap();
        }
        let recovery = overlays.recover().unwrap();
        let now = tree(&data);
        expect_nothing_beside(&data);
        match recovery {
            Some(Recovery::Cleared) => {
                assert_eq!(now, before, "{stop}");
                finished[0] += 1;
            }
            Some(Recovery::Finished) => {
                let after = after.get_or_insert_with(|| now.clone());
                assert_eq!(now, *after, "{stop}");
                finished[1] += 1;
            }
            _ => assert!(is_done),
        }
        if is_done {
            assert_eq!(Some(now), after);
            break;
        }
        // As before for the next round.
        for entry in fs::read_dir(&data).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
        tool(
            "cp",
            &["-aT", model.to_str().unwrap(), data.to_str().unwrap()],
        );
    }
    assert!(finished[0] > 5 && finished[1] > 5, "{finished:?}");
}

#[test]
fn a_commit_of_which_one_step_fails_is_undone() {
    isolated(|dir| {
        let (data, overlays, scope, _session) = changed_in_every_way(dir);
        let before = tree(&data);
        let (refused, moved) = (data.join("type"), data.join("mode"));
        for is_undone in [true, false] {
            let mut times = 0;
            let result = overlays.apply_to_host(
                &scope,
                std::slice::from_ref(&data),
                ApplyMode::Apply,
                &mut |seen| {
                    if seen.path != refused {
                        return;
                    }
                    times += 1;
                    if times == 2 {
                        // All is staged and much is done: the kernel refuses to rename this now.
                        bind(&refused, &refused);
                        if !is_undone {
                            // Nor can what was put there be renamed to another mount.
                            bind(&moved, &moved);
                        }
                    }
                },
            );
            assert_eq!(times, 2);
            let error = result.unwrap_err();
            assert_eq!(error.errno(), Some(nix::libc::EBUSY), "{error}");
            assert_eq!(
                matches!(error, Error::HalfCommitted { .. }),
                !is_undone,
                "{error}"
            );
            let detach = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(&refused, detach).unwrap();
            if !is_undone {
                assert!(moved.join("new").exists());
                rustix::mount::unmount(&moved, detach).unwrap();
                assert_eq!(overlays.recover().unwrap(), Some(Recovery::Undone));
            }
            assert_eq!(tree(&data), before);
            expect_nothing_beside(&data);
        }
        apply(&overlays, &scope, &data).unwrap();
        assert!(overlays.diff(&scope, &mut |_| ()).unwrap().is_empty());
    });
}

#[test]
fn what_the_host_changes_meanwhile_is_named_and_kept() {
    isolated(|dir| {
        let (data, overlays, scope, _session) = changed_in_every_way(dir);
        let changed = data.join("changed");
        let mut done = false;
        let mut result = overlays.apply_to_host(
            &scope,
            std::slice::from_ref(&data),
            ApplyMode::Apply,
            &mut |_| {
                if !std::mem::replace(&mut done, true) {
                    fs::write(&changed, "the host's").unwrap();
                }
            },
        );
        assert!(
            matches!(&result, Err(Error::Changed { path }) if *path == changed),
            "{result:?}"
        );
        assert_eq!(fs::read(&changed).unwrap(), b"the host's");
        assert!(data.join("removed").exists() && !data.join("added").exists());
        expect_nothing_beside(&data);
        // Directories with mounts in them are not taken away with the mounts.
        fs::create_dir(data.join("gone/mount")).unwrap();
        mount_tmpfs(&data.join("gone/mount"));
        fs::write(data.join("gone/mount/kept"), "").unwrap();
        result = apply(&overlays, &scope, &data);
        assert!(
            matches!(result, Err(Error::MountBelow { .. })),
            "{result:?}"
        );
        assert!(data.join("gone/mount/kept").exists());
        expect_nothing_beside(&data);
    });
}

#[test]
fn a_tree_deeper_than_a_path_is_long_is_listed_archived_and_committed() {
    isolated(|dir| {
        let data = dir.join("data");
        fs::create_dir(&data).unwrap();
        let request = request(dir, "a", OverlayScope::Node);
        let session = open(&request);
        // Longer names make a path longer with fewer directories.
        let script = format!(
            "cd {}; i=0; n=$(printf %0100d 0); while [ $i -lt 120 ]; do mkdir $n && cd -P $n; i=$((i+1)); done; \
             echo deep >file",
            data.display()
        );
        sh(&session, &script);
        let (overlays, scope) = overlays(&request);
        let usage = overlays.disk_usage(&scope, &mut |_| ()).unwrap();
        assert!(usage.files > 121);
        let below = |changes: &[Change]| {
            let below = changes
                .iter()
                .filter(|change| change.path.starts_with(&data));
            below.count()
        };
        let changes = overlays.diff(&scope, &mut |_| ()).unwrap();
        assert_eq!(below(&changes), 121);
        let deepest = changes
            .iter()
            .max_by_key(|change| change.path.as_os_str().len());
        assert!(deepest.unwrap().text().unwrap().unwrap().contains("+deep"));
        let tar = overlays
            .export_diff(&scope, Vec::new(), &mut |_| ())
            .unwrap();
        assert_eq!(tar.flaws, []);
        apply(&overlays, &scope, &data).unwrap();
        assert_eq!(below(&overlays.diff(&scope, &mut |_| ()).unwrap()), 0);
        // And back: the host's deep tree is compared, deleted in the scope, and then here.
        let script = format!("rm -r {}/0*", data.display());
        sh(&session, &script);
        apply(&overlays, &scope, &data).unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
        session.close().unwrap();
        overlays.reset(&scope).unwrap();
        overlays.remove(&scope).unwrap();
    });
}

#[test]
fn what_is_replaced_on_the_host_after_a_kill_is_kept() {
    isolated(|dir| {
        let (data, overlays, scope, _session) = changed_in_every_way(dir);
        let before = tree(&data);
        let changed = data.join("changed");
        let mut times = 0;
        let killed = catch_unwind(AssertUnwindSafe(|| {
            let all = std::slice::from_ref(&data);
            overlays.apply_to_host(&scope, all, ApplyMode::Apply, &mut |seen| {
                times += usize::from(seen.path == changed);
                if times == 2 {
                    // It is its turn to be renamed.
                    resume_unwind(Box::new("killed"));
                }
            })
        }));
        assert!(killed.is_err());
        fs::write(data.join("newer"), "the host's").unwrap();
        fs::rename(data.join("newer"), &changed).unwrap();
        assert_eq!(overlays.recover().unwrap(), Some(Recovery::Undone));
        assert_eq!(fs::read(&changed).unwrap(), b"the host's");
        fs::write(&changed, "changed").unwrap();
        assert_eq!(tree(&data), before);
        expect_nothing_beside(&data);
    });
}

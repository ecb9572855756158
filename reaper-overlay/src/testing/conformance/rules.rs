//! The rules.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{Subject, Writes, is_mounted, mount_places, shell};
use crate::{isolation::Session, linux::syscall};

/// The namespace of mounts that a process in a view is in.
const MOUNTS: &str = "readlink /proc/self/ns/mnt";

pub(super) fn processes_run_in_the_working_directory_of_the_request(subject: &Subject) {
    let session = subject.open(&subject.request("a"));
    let here = subject.dir.canonicalize().expect("the suite's directory");
    assert_eq!(shell(&session, "pwd -P"), here.display().to_string());
    session.close().expect("release");
}

pub(super) fn all_processes_of_a_container_see_the_same_mounts(subject: &Subject) {
    let mut requests = vec![subject.request("a")];
    if subject.volumes {
        requests.push(subject.with_volume("b").0);
    }
    for request in requests {
        let session = subject.open(&request);
        let (first, mut lasting) = lasting(&session, MOUNTS);
        assert_eq!(shell(&session, MOUNTS), first);
        drop(lasting.stdin.take());
        lasting.wait().expect("wait for sh");
        session.close().expect("release");
    }
}

/// The first line that a line of shell writes in a view, and its process, which lasts until its input ends:
/// the number of a namespace that no longer exists may be another's.
fn lasting(session: &Session, script: &str) -> (String, Child) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{script}; read end")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = session.spawn(command).expect("run sh in the view");
    let output = child.stdout.take().expect("it is piped");
    let mut line = String::new();
    let read = BufReader::new(output).read_line(&mut line);
    read.expect("read what sh writes");
    (line.trim_end().to_owned(), child)
}

pub(super) fn a_view_that_cannot_be_made_leaves_nothing(subject: &Subject) {
    let (mut request, place) = subject.with_volume("a");
    request.mounts[0].source = Some(subject.dir.join("missing"));
    // What is made once for all views is no trace of this one.
    subject
        .open(&subject.request("b"))
        .close()
        .expect("release");
    let before = mount_places();
    let error = subject.fails(&request);
    let said = error.to_string();
    let named = ["missing", "place"].iter().any(|name| said.contains(name));
    assert!(named, "the error names what could not be done: {said}");
    assert_eq!(mount_places(), before);
    assert!(!is_mounted(&place));
    subject.isolation.cleanup(&request).expect("collect");
    subject
        .open(&subject.request("a"))
        .close()
        .expect("release");
}

pub(super) fn volume_is_visible_only_to_its_container(subject: &Subject) {
    if !subject.volumes {
        return;
    }
    let (request, place) = subject.with_volume("a");
    let with = subject.open(&request);
    let without = subject.open(&subject.request("b"));
    let read = format!("cat {}/content 2>&1; true", place.display());
    assert_eq!(shell(&with, &read), "a");
    assert_ne!(shell(&without, &read), "a");
    let place_of = format!("/source {} ", place.display());
    let own = format!("grep -c '{place_of}' /proc/self/mountinfo; true");
    assert_eq!(shell(&with, &own), "1");
    assert_eq!(shell(&without, &own), "0");
    assert!(!is_mounted(&place), "the caller must not see it");
    with.close().expect("release");
    without.close().expect("release");
}

/// Whether a process in the view can write `text` to `path`.
fn try_write(session: &Session, text: &str, path: &Path) -> bool {
    let script = format!(
        "(echo {text} > {}) 2>/dev/null && echo written; true",
        path.display()
    );
    shell(session, &script) == "written"
}

/// What a process in the view reads in `path`, or `nothing`.
fn read(session: &Session, path: &Path) -> String {
    let script = format!("cat {} 2>/dev/null || echo nothing", path.display());
    shell(session, &script)
}

pub(super) fn a_volume_is_written_to_unless_it_is_read_only(subject: &Subject) {
    if !subject.volumes {
        return;
    }
    let (mut request, place) = subject.with_volume("a");
    let (seen, source) = (place.join("content"), subject.dir.join("source/content"));
    let session = subject.open(&request);
    assert!(try_write(&session, "changed", &seen), "a volume is refused");
    session.close().expect("release");
    let on_host = fs::read_to_string(&source).expect("the volume");
    assert_eq!(on_host, "changed\n", "what was written is in the volume");
    request.mounts[0].options.push("ro".to_owned());
    let session = subject.open(&request);
    assert!(
        !try_write(&session, "again", &seen),
        "a volume that is read-only was written to"
    );
    assert_eq!(read(&session, &seen), "changed");
    session.close().expect("release");
}

pub(super) fn a_volume_behind_a_symbolic_link_changes_nothing_on_the_host(subject: &Subject) {
    if !subject.volumes {
        return;
    }
    let (request, place, target) = subject.with_linked_volume("a");
    let before = mount_places();
    let session = subject.open(&request);
    assert_eq!(read(&session, &place.join("content")), "a");
    let on_host = || fs::read_dir(&target).expect("the host's directory").count();
    if subject.writes == Some(Writes::Apart) {
        assert_eq!(on_host(), 0, "a mount point was made on the host");
    }
    assert!(!is_mounted(&target.join("made")), "mounted on the host");
    session.close().expect("release");
    assert_eq!(on_host(), 0, "a mount point is left on the host");
    // What is made once for all views stays.
    let mounted = mount_places().into_iter();
    let left = mounted.filter(|mount| !before.contains(mount) && mount.0.starts_with(&target));
    assert_eq!(left.count(), 0, "a mount is left on the host");
}

pub(super) fn writes_go_where_the_isolation_puts_them(subject: &Subject) {
    let Some(writes) = subject.writes else {
        return;
    };
    let (old, new) = (subject.dir.join("old"), subject.dir.join("new"));
    fs::write(&old, "host\n").expect("a file of the suite");
    let session = subject.open(&subject.request("a"));
    assert_eq!(read(&session, &old), "host");
    let written = [&old, &new].map(|path| try_write(&session, "own", path));
    assert_eq!(written, [writes != Writes::Refused; 2], "what is allowed");
    let on_host = fs::read_to_string(&old).expect("the host's file");
    let reached = [on_host == "own\n", new.exists()];
    assert_eq!(reached, [writes == Writes::Host; 2], "what the host sees");
    fs::write(&old, "host again\n").expect("a file of the suite");
    let expected = match writes {
        Writes::Apart => "own",
        Writes::Host | Writes::Refused => "host again",
    };
    assert_eq!(read(&session, &old), expected, "after the host has written");
    session.close().expect("release");
}

pub(super) fn writes_outlive_their_view(subject: &Subject) {
    if !matches!(subject.writes, Some(Writes::Host | Writes::Apart)) {
        return;
    }
    let (request, path) = (subject.request("a"), subject.dir.join("kept"));
    let session = subject.open(&request);
    assert!(try_write(&session, "kept", &path), "a write is refused");
    assert_eq!(read(&session, &path), "kept", "by another process");
    session.close().expect("release");
    let session = subject.open(&request);
    assert_eq!(read(&session, &path), "kept", "in the next view");
    session.close().expect("release");
}

pub(super) fn removing_one_container_leaves_what_another_uses(subject: &Subject) {
    if !matches!(subject.writes, Some(Writes::Host | Writes::Apart)) {
        return;
    }
    let (a, b) = (subject.request("a"), subject.request("b"));
    let (old, new) = (subject.dir.join("old"), subject.dir.join("new"));
    let (first, second) = (subject.open(&a), subject.open(&b));
    assert!(try_write(&second, "old", &old), "a write is refused");
    first.close().expect("release");
    subject.isolation.remove(&a).expect("forget");
    assert_eq!(read(&second, &old), "old", "after the other's removal");
    assert!(
        try_write(&second, "new", &new),
        "a write is refused after the other's removal"
    );
    assert_eq!(read(&second, &new), "new");
    second.close().expect("release");
}

pub(super) fn releasing_one_view_does_not_affect_another(subject: &Subject) {
    let a = subject.open(&subject.request("a"));
    let b = subject.open(&subject.request("b"));
    a.close().expect("release a");
    assert_eq!(shell(&b, "echo there"), "there");
    let a = subject.open(&subject.request("a"));
    b.close().expect("release b");
    assert_eq!(shell(&a, "echo there"), "there");
    a.close().expect("release a again");
}

pub(super) fn a_released_view_leaves_no_mount_and_can_be_released_again(subject: &Subject) {
    let request = if subject.volumes {
        subject.with_volume("a").0
    } else {
        subject.request("a")
    };
    let mut view = subject.isolation.prepare(&request).expect("prepare");
    view.release().expect("release");
    view.release().expect("release again");
    let before = mount_places();
    let mut view = subject.isolation.prepare(&request).expect("prepare again");
    view.release().expect("release");
    drop(view);
    assert_eq!(mount_places(), before);
}

pub(super) fn cleanup_and_remove_of_unknown_container_succeed(subject: &Subject) {
    let request = subject.request("never");
    subject.isolation.cleanup(&request).expect("collect");
    subject.isolation.remove(&request).expect("forget");
}

pub(super) fn cleanup_removes_view_of_killed_monitor(subject: &Subject) {
    let request = if subject.volumes {
        subject.with_volume("a").0
    } else {
        subject.request("a")
    };
    let child = syscall::fork().expect("fork a monitor");
    let Some(child) = child else {
        // A monitor that is killed releases nothing.
        let prepared = subject.isolation.prepare(&request).is_ok();
        syscall::exit_now(i32::from(!prepared));
    };
    let ended = nix::sys::wait::waitpid(child, None).expect("wait for the monitor");
    let expected = nix::sys::wait::WaitStatus::Exited(child, 0);
    assert_eq!(ended, expected, "prepare in another process");
    subject.isolation.cleanup(&request).expect("collect");
    subject.isolation.cleanup(&request).expect("collect again");
    let session = subject.open(&request);
    assert_eq!(shell(&session, "echo there"), "there");
    session.close().expect("release");
}

pub(super) fn removed_id_can_be_prepared_again(subject: &Subject) {
    let request = subject.request("a");
    for _ in 0..2 {
        subject.open(&request).close().expect("release");
        subject.isolation.remove(&request).expect("forget");
        subject.isolation.remove(&request).expect("forget again");
    }
    // It includes the collection of what was not released.
    let view = subject.isolation.prepare(&request).expect("prepare");
    drop(view);
    subject.isolation.remove(&request).expect("forget");
}

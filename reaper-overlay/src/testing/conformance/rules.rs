//! The rules.

use super::{Subject, is_mounted, mount_places, shell};
use crate::linux::syscall;

/// The namespace of mounts that a process in a view is in.
const MOUNTS: &str = "readlink /proc/self/ns/mnt";

pub(super) fn processes_run_in_the_working_directory_of_the_request(subject: &Subject) {
    let session = subject.open(&subject.request("a"));
    let here = subject.dir.canonicalize().expect("the suite's directory");
    assert_eq!(shell(&session, "pwd -P"), here.display().to_string());
    session.close().expect("release");
}

pub(super) fn all_processes_of_a_container_see_the_same_mounts(subject: &Subject) {
    let session = subject.open(&subject.request("a"));
    let first = shell(&session, MOUNTS);
    assert_eq!(shell(&session, MOUNTS), first);
    session.close().expect("release");
    if subject.volumes {
        let session = subject.open(&subject.with_volume("b").0);
        let first = shell(&session, MOUNTS);
        assert_eq!(shell(&session, MOUNTS), first);
        session.close().expect("release");
    }
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

//! The published contract, on every isolation of this crate, and the fake and the mock.

mod common;

use std::{fs, os::unix::fs::chown, path::Path};

use common::{user::*, *};
use reaper_overlay::{
    Configured, Error, FakeCall, FakeIsolation, FilesystemIsolation, HostFilesystem,
    MockFilesystemIsolation, MockView, ReadOnlyHost, Session, SharedOverlay,
    conformance::{self, Subject, Writes},
};
use reaper_spec::OverlayScope;

/// A new directory below `dir` for each subject.
fn fresh(dir: &Path) -> tempfile::TempDir {
    tempfile::tempdir_in(dir).unwrap()
}

#[test]
fn the_shared_overlay_keeps_the_contract() {
    isolated(|dir| {
        conformance::run(|| {
            let dir = fresh(dir);
            let subject = Subject::new(SharedOverlay::new(), dir.path()).keeping(dir);
            subject.writing(Writes::Apart)
        });
    });
}

#[test]
fn an_overlay_of_each_container_keeps_the_contract() {
    isolated(|dir| {
        conformance::run(|| {
            let dir = fresh(dir);
            let subject = Subject::new(Configured::default(), dir.path()).keeping(dir);
            subject
                .writing(Writes::Apart)
                .adjusting(|request| request.overlay.scope = OverlayScope::Container)
        });
    });
}

#[test]
fn the_overlay_of_an_ordinary_user_keeps_the_contract() {
    isolated(|dir| {
        chown(dir, Some(USER), Some(USER)).unwrap();
        become_user();
        if !users_have_overlays() {
            return assert_refused_by_name(&dir.join("home"));
        }
        conformance::run(|| {
            let dir = fresh(dir);
            let subject = Subject::new(SharedOverlay::new(), dir.path()).keeping(dir);
            subject.without_volumes().writing(Writes::Apart)
        });
    });
}

#[test]
fn the_host_keeps_the_contract() {
    isolated(|dir| {
        conformance::run(|| {
            let dir = fresh(dir);
            let subject = Subject::new(HostFilesystem, dir.path()).keeping(dir);
            subject.writing(Writes::Host)
        });
    });
}

#[test]
fn the_read_only_host_keeps_the_contract() {
    isolated(|dir| {
        conformance::run(|| {
            let dir = fresh(dir);
            let subject = Subject::new(ReadOnlyHost::default(), dir.path()).keeping(dir);
            subject.writing(Writes::Refused)
        });
    });
}

#[test]
fn the_fake_keeps_the_contract_where_no_script_says_otherwise() {
    isolated(|dir| {
        conformance::run(|| {
            let dir = fresh(dir);
            let subject = Subject::new(FakeIsolation::new(), dir.path()).keeping(dir);
            subject.writing(Writes::Host)
        });
    });
}

#[test]
fn a_script_fails_each_call_by_its_number() {
    isolated(|dir| {
        let request = request(dir, "a", OverlayScope::Node);
        let isolation = FakeIsolation::over(HostFilesystem);
        isolation.fail(FakeCall::Enter, 1, Error::ImageMissing);
        isolation.fail(FakeCall::Release, 2, Error::ImageMissing);
        isolation.fail(FakeCall::Cleanup, 1, Error::ImageMissing);
        let error = Session::open(&isolation, &request).err().unwrap();
        assert!(error.to_string().contains("image"), "{error}");
        assert_eq!(isolation.calls(FakeCall::Enter), 0, "that was in a child");
        assert_eq!(isolation.calls(FakeCall::KeepNamespace), 0);
        assert_eq!(isolation.calls(FakeCall::Release), 1);
        let mut view = isolation.prepare(&request).unwrap();
        view.release().unwrap_err();
        view.release().unwrap();
        isolation.cleanup(&request).unwrap_err();
        isolation.clone().cleanup(&request).unwrap();
        isolation.remove(&request).unwrap();
        assert_eq!(isolation.calls(FakeCall::Remove), 1);
        assert_eq!(isolation.requests(), [request.clone(), request]);
        assert!(fs::read_dir(dir).unwrap().next().is_none());
    });
}

#[test]
fn a_mock_answers_what_a_test_expects() {
    isolated(|dir| {
        let mut isolation = MockFilesystemIsolation::new();
        isolation.expect_prepare().once().returning(|_| {
            let mut view = MockView::new();
            view.expect_release().once().returning(|| Ok(()));
            Ok(Box::new(view))
        });
        let mut view = isolation
            .prepare(&request(dir, "a", OverlayScope::Node))
            .unwrap();
        view.release().unwrap();
    });
}

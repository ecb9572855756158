//! The binders for tests of consumers.

use std::os::fd::AsRawFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reaper_exec::io::{
    BindRequest, BoundStdio, ChildStdio, FakeBinder, IoBinder, IoError, MockIoBinder, StdioRequest,
    StreamTarget,
};
use reaper_spec::{ConsoleSize, ContainerId};

use crate::support::Scratch;

fn bind(binder: &dyn IoBinder, output: &str) -> Result<Box<dyn BoundStdio>, IoError> {
    let id = ContainerId::new("web-1").expect("an id");
    let mut stdio = StdioRequest::default();
    stdio.streams.stdout = StreamTarget::Uri(output.to_owned());
    binder.bind(BindRequest::new(&id, stdio).with_terminal(Some(None)))
}

#[test]
fn fake_binder_records_its_calls() {
    let binder = FakeBinder::new();
    let mut streams = bind(&binder, "/out").expect("bind");
    let size = ConsoleSize {
        width: 80,
        height: 25,
    };
    assert!(matches!(streams.take_child(), Some(ChildStdio::Streams(_))));
    assert!(streams.take_child().is_none());
    streams.resize(size).expect("resize");
    streams.close_stdin();
    streams.ended();
    assert!(streams.is_finished());
    drop(streams);
    let [seen] = &binder.seen()[..] else {
        panic!("one binding")
    };
    assert_eq!(seen.streams.stdout, StreamTarget::Uri("/out".to_owned()));
    assert_eq!(seen.terminal, Some(Some(size)));
    assert!(seen.stdin_closed && seen.ended && seen.dropped);
}

#[test]
fn a_fake_fails_once_where_its_script_says() {
    let binder = FakeBinder::new();
    binder.fail_next(IoError::Missing("stdout"));
    assert!(matches!(
        bind(&binder, "/a"),
        Err(IoError::Missing("stdout"))
    ));
    assert!(bind(&binder, "/b").is_ok());
    assert_eq!(binder.seen().len(), 1);
}

#[test]
fn held_fake_streams_become_ready_and_pollable_on_release() {
    // A child that another test forks would have a copy of what is let go of here.
    let _alone = Scratch::alone();
    let binder = FakeBinder::new();
    binder.hold();
    let mut streams = bind(&binder, "/out").expect("bind");
    let reported = |streams: &dyn BoundStdio| {
        let mut wanted = Vec::new();
        streams.interests(&mut wanted);
        let (fd, flags) = wanted[0];
        let mut fds = [PollFd::new(fd, flags)];
        let count = poll(&mut fds, PollTimeout::ZERO).expect("poll");
        (count, fd.as_raw_fd())
    };
    assert!(!streams.is_ready().expect("no failure"));
    assert_eq!(reported(&*streams).0, 0);
    binder.release();
    let (count, fd) = reported(&*streams);
    assert_eq!(count, 1);
    streams.ready(fd, PollFlags::POLLHUP);
    assert!(streams.is_ready().expect("no failure"));
    binder.hold();
    assert!(
        streams.is_ready().expect("no failure"),
        "only those to come wait"
    );
    assert!(
        !bind(&binder, "/out")
            .expect("bind")
            .is_ready()
            .expect("no failure")
    );
}

#[test]
fn a_mock_expects_calls() {
    let mut binder = MockIoBinder::new();
    binder
        .expect_bind()
        .withf(|request| request.id.as_str() == "web-1")
        .once()
        .returning(|_| Err(IoError::Missing("stdin")));
    assert!(bind(&binder, "/out").is_err());
}

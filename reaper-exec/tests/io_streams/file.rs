//! Files, nothing, and what is inherited.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{MetadataExt, OpenOptionsExt},
            net::UnixListener,
        },
    },
};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use reaper_exec::io::{ChildStdio, StdioFds, StreamTarget};

use crate::support::{Ask, Scratch, reader, uri};

const NULL: StreamTarget = StreamTarget::Null;

#[test]
fn both_outputs_are_appended_to_one_file() {
    let folder = Scratch::new();
    let log = folder.join("made/for it/log");
    let target = uri(format!("file://{}", log.display()).replace(' ', "%20"));
    for _ in 0..2 {
        let mut monitor = Ask::streams(NULL, target.clone(), target.clone()).bind();
        monitor.spawn("echo out; echo err >&2");
        assert_eq!(monitor.run_to_exit(), 0);
        assert!(monitor.bound.is_finished());
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "out\nerr\nout\nerr\n");
}

#[test]
fn both_outputs_to_same_file_share_one_open_file() {
    let folder = Scratch::new();
    let target = uri(format!("file://{}", folder.join("log").display()));
    let mut monitor = Ask::streams(NULL, target.clone(), target).bind();
    let Some(ChildStdio::Streams([_, out, err])) = monitor.bound.take_child() else {
        panic!("no streams")
    };
    fcntl(&out, FcntlArg::F_SETFL(OFlag::O_APPEND | OFlag::O_NONBLOCK)).unwrap();
    let flags = OFlag::from_bits_retain(fcntl(&err, FcntlArg::F_GETFL).unwrap());
    assert!(flags.contains(OFlag::O_NONBLOCK), "they share their flags");
}

#[test]
fn files_are_read_and_appended_to_by_bare_paths() {
    let folder = Scratch::new();
    let (input, out) = (folder.join("in"), folder.join("out"));
    fs::write(&input, "from the file").unwrap();
    fs::write(&out, "before ").unwrap();
    let mut monitor = Ask::streams(uri(&input), uri(&out), uri("/dev/null")).bind();
    monitor.spawn("cat; echo gone >&2");
    assert_eq!(monitor.run_to_exit(), 0);
    assert_eq!(fs::read_to_string(&out).unwrap(), "before from the file");
}

#[test]
fn fifo_given_as_file_is_refused_without_blocking() {
    let folder = Scratch::new();
    let fifo = folder.fifo("fifo");
    let target = || uri(format!("file://{}", fifo.display()));
    let error = Ask::output(target()).refused();
    assert!(error.contains("is a FIFO, not a file"), "{error}");
    let _client = reader(&fifo);
    let error = Ask::output(target()).refused();
    assert!(error.contains("is a FIFO, not a file"), "{error}");
    let error = Ask::streams(target(), NULL, NULL).refused();
    assert!(
        error.contains("stdin") && error.contains("is a FIFO, not a file"),
        "{error}"
    );

    let socket = folder.join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let error = Ask::output(uri(format!("file://{}", socket.display()))).refused();
    assert!(error.contains("is a socket"), "{error}");

    let error = Ask::output(uri(format!("file://{}", folder.path().display()))).refused();
    assert!(error.contains("Is a directory"), "{error}");
}

#[test]
fn streams_without_target_are_dev_null() {
    let _folder = Scratch::new();
    let mut monitor = Ask::default().bind();
    monitor.spawn("for fd in 0 1 2; do [ /proc/self/fd/$fd -ef /dev/null ] || exit 1; done; cat");
    assert_eq!(monitor.run_to_exit(), 0);
}

#[test]
fn inherited_streams_are_callers_descriptors() {
    let _folder = Scratch::new();
    let (input, mut feed) = std::io::pipe().unwrap();
    let (mut result, output) = std::io::pipe().unwrap();
    let output = OwnedFd::from(output);
    let errors = output.try_clone().unwrap();
    fcntl(&errors, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let inherited = [Some(OwnedFd::from(input)), Some(output), Some(errors)];
    let numbers = inherited
        .each_ref()
        .map(|fd| fd.as_ref().map(AsRawFd::as_raw_fd));
    let inherit = || StreamTarget::Inherit;
    let mut monitor = Ask {
        attachments: StdioFds::new().with_inherited(inherited),
        owner: Some((65534, 65534)),
        ..Ask::streams(inherit(), inherit(), inherit())
    }
    .bind();
    let Some(ChildStdio::Streams(ends)) = monitor.bound.take_child() else {
        panic!("no streams")
    };
    assert_eq!(ends.each_ref().map(|fd| Some(fd.as_raw_fd())), numbers);
    let flags = FdFlag::from_bits_retain(fcntl(&ends[2], FcntlArg::F_GETFD).unwrap());
    assert!(flags.contains(FdFlag::FD_CLOEXEC));
    let [input, output, _] = ends.map(File::from);
    assert_eq!(
        output.metadata().unwrap().uid(),
        65534,
        "it can be opened as /dev/stdout"
    );

    feed.write_all(b"x").unwrap();
    let mut byte = [0];
    (&input).read_exact(&mut byte).unwrap();
    (&output).write_all(&byte).unwrap();
    drop(output);
    result.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn input_file_is_not_chowned_to_process_user() {
    let folder = Scratch::new();
    let (input, out) = (folder.join("in"), folder.join("out"));
    fs::write(&input, "").unwrap();
    let ask = Ask::streams(uri(&input), uri(format!("file://{}", out.display())), NULL);
    let _monitor = Ask {
        owner: Some((65534, 65534)),
        ..ask
    }
    .bind();
    assert_eq!(fs::metadata(&input).unwrap().uid(), 0);
    assert_eq!(fs::metadata(&out).unwrap().uid(), 65534);
    assert_eq!(fs::metadata("/dev/null").unwrap().uid(), 0);
}

#[test]
fn uninheritable_or_unknown_target_is_refused_with_reason() {
    let folder = Scratch::new();
    let error = Ask::output(StreamTarget::Inherit).refused();
    assert!(
        error.contains("stdout") && error.contains("no descriptor"),
        "{error}"
    );

    let tty = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/null");
    let inherited = [None, Some(tty.unwrap().into()), None];
    let ask = Ask::terminal(NULL, StreamTarget::Inherit);
    let attachments = StdioFds::new().with_inherited(inherited);
    let error = Ask { attachments, ..ask }.refused();
    assert!(error.contains("console socket"), "{error}");

    let error = Ask::output(uri("ftp:///x")).refused();
    assert!(
        error.contains("\"ftp:///x\" is no stream target"),
        "{error}"
    );
    let error = Ask::streams(uri("binary:///bin/true"), NULL, NULL).refused();
    assert!(
        error.contains("stdin") && error.contains("binary:///bin/true"),
        "{error}"
    );
    drop(folder);
}

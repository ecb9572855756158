//! The rules.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use reaper_spec::ConsoleSize;
use rustix::termios::tcgetwinsize;

use super::{Subject, client::open_reader};

/// More than pipes and sockets hold.
const MUCH: usize = 1 << 20;

pub(super) fn output_arrives_followed_by_end_of_file(subject: &Subject) {
    let mut client = subject.client();
    let mut process = subject.bind(&mut client);
    process.run("echo hello; exit 3");
    assert_eq!(process.read_all(&mut *client.output), b"hello\n");
    assert_eq!(process.code(), Some(3));
    process.finish();
}

pub(super) fn child_gets_blocking_close_on_exec_descriptors_once(subject: &Subject) {
    let mut client = subject.client();
    let mut process = subject.bind(&mut client);
    let ends = process.take_streams();
    assert!(process.bound.take_child().is_none(), "handed out twice");
    for end in &ends {
        let flags = OFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFL).expect("flags"));
        assert!(!flags.contains(OFlag::O_NONBLOCK), "{flags:?}");
        let flags = FdFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFD).expect("flags"));
        assert!(flags.contains(FdFlag::FD_CLOEXEC), "{flags:?}");
    }
}

pub(super) fn an_unknown_target_is_refused_by_its_name(subject: &Subject) {
    let error = subject.refused().to_string();
    assert!(
        error.contains("stdout") && error.contains("of-nobody"),
        "{error}"
    );
}

pub(super) fn a_slow_reader_loses_nothing(subject: &Subject) {
    let mut client = subject.client();
    let mut process = subject.bind(&mut client);
    process.run(&format!("head -c {MUCH} /dev/zero; echo end"));
    // The first bytes are read, and the rest only once everything is full.
    let mut bytes = process.read(&mut *client.output, 1);
    process.settle();
    bytes.extend(process.read_all(&mut *client.output));
    assert_eq!(bytes.len(), MUCH + 4);
    assert!(bytes.ends_with(b"\0end\n"));
    assert_eq!(process.code(), Some(0));
    process.finish();
}

pub(super) fn output_keeps_its_order(subject: &Subject) {
    const LAST: u32 = 50_000;
    let mut client = subject.client();
    let mut process = subject.bind(&mut client);
    process.run(&format!("seq {LAST}"));
    let bytes = process.read_all(&mut *client.output);
    let text = String::from_utf8(bytes).expect("numbers");
    let mut lines = text.lines();
    for number in 1..=LAST {
        let line = lines.next().unwrap_or("the end");
        assert!(
            line == number.to_string(),
            "{line} in the place of {number}"
        );
    }
    assert_eq!(lines.next(), None, "more than was written");
    assert_eq!(process.code(), Some(0));
    process.finish();
}

pub(super) fn closed_reader_does_not_fail_the_process(subject: &Subject) {
    let mut client = subject.client();
    let mut process = subject.bind(&mut client);
    drop(client.output);
    process.run("echo lost && echo lost && exit 5");
    assert_eq!(process.code(), Some(5));
}

/// Opens `fifo` for reading if `act` takes longer than `limit`, and says whether it had to.
fn rescued<T>(fifo: &Path, limit: Duration, act: impl FnOnce() -> T) -> (T, bool) {
    let (done, wait) = mpsc::channel();
    let fifo = fifo.to_owned();
    let rescuer = thread::spawn(move || -> Option<File> {
        let late = wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        late.then(|| open_reader(&fifo))
    });
    let answer = act();
    // It has ended if it was late.
    let _ = done.send(());
    let opened = rescuer.join().expect("the thread that opens a FIFO");
    (answer, opened.is_some())
}

pub(super) fn a_missing_reader_blocks_nothing_and_a_late_one_gets_all(subject: &Subject) {
    let mut client = subject.client();
    let Some(fifo) = client.output_fifo() else {
        return;
    };
    client.output = Box::new(File::open("/dev/null").expect("open /dev/null"));
    let (mut process, was_blocked) = rescued(&fifo, subject.limit, || subject.bind(&mut client));
    assert!(!was_blocked, "binding waited for a reader");
    process.run("echo early; exit 5");
    assert_eq!(process.code(), Some(5));
    let mut late = open_reader(&fifo);
    assert_eq!(process.read_all(&mut late), b"early\n");
    process.finish();
}

pub(super) fn an_input_outlives_its_clients_until_it_is_closed(subject: &Subject) {
    let mut client = subject.client();
    let mut process = subject.bind(&mut client);
    process.run("cat; exit 4");
    for part in ["one ", "two"] {
        client.write(part.as_bytes());
        let read = process.read(&mut *client.output, part.len());
        assert_eq!(read, part.as_bytes());
        // A process whose input has ended ends.
        process.settle();
    }
    process.bound.close_stdin();
    process.bound.close_stdin();
    assert_eq!(process.read_all(&mut *client.output), b"");
    assert_eq!(process.code(), Some(4));
    process.finish();
}

pub(super) fn an_input_can_be_closed_before_the_start(subject: &Subject) {
    let mut client = subject.client();
    let mut process = subject.bind(&mut client);
    client.write(b"buffered");
    process.bound.close_stdin();
    process.run("cat");
    assert_eq!(process.read_all(&mut *client.output), b"buffered");
    assert_eq!(process.code(), Some(0));
}

pub(super) fn outputs_of_two_processes_stay_separate(subject: &Subject) {
    let (mut one, mut other) = (subject.client(), subject.client());
    let (mut first, mut second) = (subject.bind(&mut one), subject.bind(&mut other));
    second.run("echo second");
    first.run("echo first");
    assert_eq!(first.read_all(&mut *one.output), b"first\n");
    assert_eq!(second.read_all(&mut *other.output), b"second\n");
    assert_eq!((first.code(), second.code()), (Some(0), Some(0)));
}

pub(super) fn a_size_without_a_terminal_is_ignored(subject: &Subject) {
    let mut client = subject.client();
    let mut process = subject.bind(&mut client);
    process.bound.resize(SIZE).expect("resize");
}

const SIZE: ConsoleSize = ConsoleSize {
    width: 80,
    height: 25,
};

pub(super) fn a_terminal_has_the_size_that_it_was_given_last(subject: &Subject) {
    if !subject.terminals {
        return;
    }
    let mut client = subject.client();
    let mut process = subject.bind_terminal(&mut client, SIZE);
    let slave = process.take_terminal();
    let seen = || {
        let size = tcgetwinsize(&slave).expect("the size of a terminal");
        (size.ws_col, size.ws_row)
    };
    assert_eq!(seen(), (80, 25), "the first size");
    for (width, height) in [(132, 43), (40, 10)] {
        process
            .bound
            .resize(ConsoleSize { width, height })
            .expect("resize");
        assert_eq!(seen(), (width, height), "after a resize");
    }
}

pub(super) fn a_terminal_ends_with_its_process(subject: &Subject) {
    if !subject.terminals {
        return;
    }
    let mut client = subject.client();
    let mut process = subject.bind_terminal(&mut client, SIZE);
    process.run_on_terminal("echo hello; exit 3");
    assert_eq!(process.read_all(&mut *client.output), b"hello\r\n");
    assert_eq!(process.code(), Some(3));
    process.finish();
}

pub(super) fn dropping_bound_streams_ends_clients_output(subject: &Subject) {
    let mut client = subject.client();
    drop(subject.bind(&mut client));
    let read = client.output.read().expect("the end, at once");
    assert_eq!(read, b"");
}

/// What this process has open below a folder. Other descriptors may be those of other threads.
fn opened_below(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.canonicalize().expect("the suite's folder");
    let descriptors = fs::read_dir("/proc/self/fd").expect("read /proc/self/fd");
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let mut paths: Vec<_> = links.filter(|path| path.starts_with(&folder)).collect();
    paths.sort();
    paths
}

pub(super) fn dropped_streams_leave_no_descriptor_open(subject: &Subject) {
    let mut client = subject.client();
    let before = opened_below(&subject.folder);
    let mut process = subject.bind(&mut client);
    process.run("exit 0");
    assert_eq!(process.code(), Some(0));
    drop(process);
    assert_eq!(opened_below(&subject.folder), before, "after the exit");
    let mut client = subject.client();
    let before = opened_below(&subject.folder);
    drop(subject.bind(&mut client));
    assert_eq!(opened_below(&subject.folder), before, "without a process");
    if subject.terminals {
        let mut client = subject.client();
        let mut process = subject.bind_terminal(&mut client, SIZE);
        let slave = process.take_terminal();
        drop(process);
        // A terminal whose master is closed is hung up.
        let mut fds = [PollFd::new(slave.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).expect("poll");
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        assert!(events.contains(PollFlags::POLLHUP), "the master is open");
    }
}

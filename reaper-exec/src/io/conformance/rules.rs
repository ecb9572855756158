//! The rules.

use std::{fs::OpenOptions, io::Write};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use reaper_spec::ConsoleSize;

use super::Subject;

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
    while bytes.len() < MUCH / 2 {
        bytes.extend(process.read(&mut *client.output, 4096));
    }
    bytes.extend(process.read_all(&mut *client.output));
    assert_eq!(bytes.len(), MUCH + 4);
    assert!(bytes.ends_with(b"\0end\n"));
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

pub(super) fn an_input_outlives_its_clients_until_it_is_closed(subject: &Subject) {
    let mut client = subject.client();
    let mut process = subject.bind(&mut client);
    process.run("cat; exit 4");
    for part in ["one ", "two"] {
        let mut writer = OpenOptions::new()
            .write(true)
            .open(&client.input)
            .expect("open the input");
        writer.write_all(part.as_bytes()).expect("write");
        drop(writer);
        let read = process.read(&mut *client.output, part.len());
        assert_eq!(read, part.as_bytes());
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
    let mut writer = OpenOptions::new()
        .write(true)
        .open(&client.input)
        .expect("open the input");
    writer.write_all(b"buffered").expect("write");
    drop(writer);
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
    let size = ConsoleSize {
        width: 80,
        height: 25,
    };
    process.bound.resize(size).expect("resize");
}

pub(super) fn dropping_bound_streams_ends_clients_output(subject: &Subject) {
    let mut client = subject.client();
    drop(subject.bind(&mut client));
    let read = client.output.read().expect("the end, at once");
    assert_eq!(read, b"");
}

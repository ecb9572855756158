//! FIFOs handed to the process: nothing is lost, nobody hangs, nothing is copied.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    thread,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    poll::PollFlags,
};
use reaper_exec::io::{ChildStdio, StreamTarget};

use crate::{
    machine::needs_dev_stderr,
    support::{Ask, Monitor, Scratch, noise, reader, uri, writer},
};

const NULL: StreamTarget = StreamTarget::Null;

/// A client as simple as `cat`: it opens, waiting for a writer if it must, and reads to the end.
fn blocking_read(monitor: &mut Monitor, path: &Path) -> Vec<u8> {
    let (done, signal) = std::io::pipe().expect("pipe");
    let path = path.to_owned();
    let client = thread::spawn(move || {
        let mut bytes = Vec::new();
        File::open(path)
            .expect("open")
            .read_to_end(&mut bytes)
            .expect("read");
        drop(signal);
        bytes
    });
    while monitor.turn(&[(done.as_fd(), PollFlags::POLLIN)])[0].is_empty() {}
    client.join().expect("client")
}

#[test]
fn a_reader_that_comes_after_the_end_gets_all_and_the_end_of_file() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    let mut monitor = Ask::output(uri(&out)).bind();
    monitor.spawn("echo hello");
    assert_eq!(monitor.run_to_exit(), 0);
    assert!(
        !monitor.bound.is_finished(),
        "the output is kept for a reader"
    );

    assert_eq!(blocking_read(&mut monitor, &out), b"hello\n");
    assert!(monitor.bound.is_finished());
}

#[test]
fn a_reader_that_comes_at_any_instant_gets_all_and_the_end_of_file() {
    for _ in 0..100 {
        let folder = Scratch::new();
        let out = folder.fifo("out");
        let mut monitor = Ask::output(uri(&out)).bind();
        monitor.spawn("echo hello");
        assert_eq!(blocking_read(&mut monitor, &out), b"hello\n");
        monitor.finish();
    }
}

#[test]
fn a_reader_that_was_there_before_the_bind_is_served() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    let mut client = reader(&out);
    let mut monitor = Ask::output(uri(&out)).bind();
    monitor.spawn("echo hello");
    assert_eq!(monitor.read_to_end(&mut client), b"hello\n");
    monitor.finish();
}

#[test]
fn next_reader_gets_rest_after_reader_died_without_sigpipe() {
    let folder = Scratch::new();
    let (input, out) = (folder.fifo("in"), folder.fifo("out"));
    let mut monitor = Ask::streams(uri(&input), uri(&out), NULL).bind();
    monitor.spawn("echo one; read line; echo two; echo three");
    let mut client = reader(&out);
    assert_eq!(
        monitor.read_until(&mut client, |got| got.ends_with(b"\n")),
        b"one\n"
    );
    drop(client);
    writer(&input).write_all(b"go\n").unwrap();
    assert_eq!(monitor.run_to_exit(), 0);
    // One more that dies with nothing read, when the process is gone.
    drop(reader(&out));
    assert_eq!(blocking_read(&mut monitor, &out), b"two\nthree\n");
    monitor.finish();
}

#[test]
fn both_outputs_may_share_one_fifo() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    let mut monitor = Ask::streams(NULL, uri(&out), uri(&out)).bind();
    monitor.spawn("echo out; echo err >&2");
    assert_eq!(monitor.run_to_exit(), 0);
    assert_eq!(blocking_read(&mut monitor, &out), b"out\nerr\n");
    assert!(monitor.bound.is_finished());
}

#[test]
fn fifo_named_in_two_ways_for_both_outputs_is_closed() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    let other = format!("fifo://{}", out.display());
    let mut monitor = Ask::streams(NULL, uri(&out), uri(other)).bind();
    monitor.spawn("echo out; echo err >&2");
    assert_eq!(monitor.run_to_exit(), 0);
    assert_eq!(blocking_read(&mut monitor, &out), b"out\nerr\n");
    assert!(monitor.bound.is_finished());
}

#[test]
fn grandchild_holding_output_does_not_delay_the_end() {
    let folder = Scratch::new();
    let (input, out) = (folder.fifo("in"), folder.fifo("out"));
    let mut monitor = Ask::streams(uri(&input), uri(&out), NULL).bind();
    let mut client = reader(&out);
    // It ends with the input, which stays open for it as long as this client's end.
    let keep = writer(&input);
    monitor.spawn("(exec 3<&0; cat <&3) & echo started");
    assert_eq!(monitor.run_to_exit(), 0);
    assert!(monitor.bound.is_finished());
    assert_eq!(read_now(&mut client), b"started\n");
    drop(keep);
}

/// What is there now.
fn read_now(client: &mut File) -> Vec<u8> {
    let mut chunk = [0; 100];
    let count = client.read(&mut chunk).expect("something to read");
    chunk[..count].to_vec()
}

#[test]
fn clients_of_the_input_come_and_go_until_it_is_closed() {
    let folder = Scratch::new();
    let (input, out) = (folder.fifo("in"), folder.fifo("out"));
    let mut monitor = Ask::streams(uri(&input), uri(&out), NULL).bind();
    let mut client = reader(&out);
    monitor.spawn("cat");
    for text in [b"one\n", b"two\n"] {
        writer(&input).write_all(text).unwrap();
        assert_eq!(
            monitor.read_until(&mut client, |got| got.ends_with(b"\n")),
            text
        );
    }
    writer(&input).write_all(b"last").unwrap();
    monitor.bound.close_stdin();
    monitor.bound.close_stdin();
    assert_eq!(monitor.read_to_end(&mut client), b"last");
    assert_eq!(monitor.run_to_exit(), 0);
}

#[test]
fn an_input_closed_before_the_start_is_read_to_its_end() {
    let folder = Scratch::new();
    let (input, out) = (folder.fifo("in"), folder.fifo("out"));
    let mut monitor = Ask::streams(uri(&input), uri(&out), NULL).bind();
    writer(&input).write_all(b"early").unwrap();
    monitor.bound.close_stdin();
    monitor.spawn("cat");
    let mut client = reader(&out);
    assert_eq!(monitor.read_to_end(&mut client), b"early");
}

#[test]
fn writing_to_exited_process_gives_client_epipe() {
    // No other test may fork: its child would hold the reading end for a moment.
    let folder = Scratch::alone();
    let input = folder.fifo("in");
    let mut monitor = Ask::streams(uri(&input), NULL, NULL).bind();
    let mut client = writer(&input);
    monitor.spawn("exit 3");
    assert_eq!(monitor.run_to_exit(), 3);
    assert_eq!(
        client.write(b"x").unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    assert!(monitor.bound.is_finished());
}

#[test]
fn much_data_passes_unchanged_and_not_through_the_monitor() {
    let folder = Scratch::new();
    let (input, out) = (folder.fifo("in"), folder.fifo("out"));
    let mut monitor = Ask::streams(uri(&input), uri(&out), NULL).bind();
    let mut wanted = Vec::new();
    monitor.bound.interests(&mut wanted);
    assert!(
        wanted.is_empty(),
        "while the process lives the monitor has nothing to do"
    );
    drop(wanted);

    let data = noise(64 << 20);
    let source = writer(&input);
    let mut sink = reader(&out);
    monitor.spawn("cat");
    let received = monitor.exchange(&mut sink, Some((&source, &data)), |got| {
        got.len() >= 64 << 20
    });
    assert!(received == data, "64 MiB differ");
    drop(source);
    monitor.bound.close_stdin();
    assert_eq!(monitor.run_to_exit(), 0);
}

#[test]
fn another_user_can_open_dev_stderr() {
    needs_dev_stderr();
    let folder = Scratch::new();
    let (out, err) = (folder.fifo("out"), folder.fifo("err"));
    let ask = Ask {
        owner: Some((65534, 65534)),
        ..Ask::streams(NULL, uri(&out), uri(&err))
    };
    let mut monitor = ask.bind();
    monitor.spawn_as("echo x >/dev/stderr", Some(65534));
    assert_eq!(monitor.run_to_exit(), 0);
    assert_eq!(blocking_read(&mut monitor, &err), b"x\n");
    assert_eq!(fs::metadata(&out).unwrap().uid(), 65534);
}

#[test]
fn the_process_gets_blocking_ends_that_close_on_exec() {
    let folder = Scratch::new();
    let [input, out, err] = ["in", "out", "err"].map(|name| folder.fifo(name));
    let mut monitor = Ask::streams(uri(&input), uri(&out), uri(&err)).bind();
    let Some(ChildStdio::Streams(ends)) = monitor.bound.take_child() else {
        panic!("no streams")
    };
    for end in &ends {
        let status = OFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFL).unwrap());
        assert!(!status.contains(OFlag::O_NONBLOCK));
        let flags = FdFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }
}

#[test]
fn bad_fifo_target_is_refused_with_reason() {
    let folder = Scratch::new();
    let missing = folder.join("missing");
    let error = Ask::output(uri(&missing)).refused();
    assert!(
        error.contains("stdout: open") && error.contains("No such file"),
        "{error}"
    );

    let error = Ask::streams(uri(folder.path()), NULL, NULL).refused();
    assert!(
        error.starts_with("stdin:") && error.contains("is a directory"),
        "{error}"
    );

    let file = folder.join("file");
    fs::write(&file, "").unwrap();
    let error = Ask::streams(NULL, NULL, uri(format!("fifo://{}", file.display()))).refused();
    assert!(error.contains("is a regular file, not a FIFO"), "{error}");
}

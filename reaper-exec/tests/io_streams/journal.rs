//! Output for the journal, which the tests play here.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use reaper_exec::io::{
    Journal, JournalBinder, Priority, StandardBinder, StreamTarget,
    conformance::{self, Client, Output, Subject},
};

use crate::{
    machine::needs_dev_stderr,
    support::{Ask, Monitor, Scratch, forking, uri},
};

const NULL: StreamTarget = StreamTarget::Null;

pub(crate) fn binder() -> JournalBinder {
    JournalBinder::with_fallback(StandardBinder::new())
}

/// A journal's socket. It waits for nobody: binding has connected to it.
fn listener(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("listen");
    listener.set_nonblocking(true).expect("a socket");
    listener
}

/// The next stream, which does not wait for what comes.
fn accept(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().expect("a stream");
    stream.set_nonblocking(true).expect("a socket");
    File::from(OwnedFd::from(stream))
}

/// What a process that has ended has written, below its header.
fn all_of(listener: &UnixListener) -> String {
    let (mut stream, _) = listener.accept().expect("a stream");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text
}

fn run(ask: Ask, script: &str) -> i32 {
    let mut monitor = ask.try_bind(&binder()).expect("bind");
    monitor.spawn(script);
    let code = monitor.run_to_exit();
    monitor.finish();
    code
}

fn refused(ask: Ask) -> String {
    match ask.try_bind(&binder()) {
        Ok(_) => panic!("bound"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn each_output_sends_journal_header_before_its_lines() {
    let folder = Scratch::new();
    let path = folder.join("journal");
    let journal = listener(&path);
    let target = Journal::new().socket(&path).target();
    let ask = Ask::streams(NULL, target.clone(), target);
    assert_eq!(run(ask, "echo out; printf err >&2; exit 3"), 3);
    assert_eq!(all_of(&journal), "web-1\n\n6\n1\n0\n0\n0\nout\n");
    assert_eq!(all_of(&journal), "web-1\n\n3\n1\n0\n0\n0\nerr");
}

#[test]
fn outputs_with_the_same_settings_share_a_stream_and_keep_their_order() {
    let folder = Scratch::new();
    let path = folder.join("a journal");
    let journal = listener(&path);
    let target = Journal::new()
        .socket(&path)
        .identifier("a name")
        .priority(Priority::Notice)
        .level_prefix(false)
        .target();
    let ask = Ask::streams(NULL, target.clone(), target);
    run(ask, "echo 1; echo 2 >&2; echo 3; echo 4 >&2");
    assert_eq!(all_of(&journal), "a name\n\n5\n0\n0\n0\n0\n1\n2\n3\n4\n");
    let second = journal.accept().expect_err("one stream");
    assert_eq!(second.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_process_of_another_user_can_open_its_error_output() {
    needs_dev_stderr();
    let folder = Scratch::new();
    let path = folder.join("journal");
    let journal = listener(&path);
    let ask = Ask {
        owner: Some((65534, 65534)),
        ..Ask::streams(NULL, NULL, Journal::new().socket(&path).target())
    };
    let mut monitor = ask.try_bind(&binder()).expect("bind");
    monitor.spawn_as("echo opened >/dev/stderr", Some(65534));
    assert_eq!(monitor.run_to_exit(), 0);
    monitor.finish();
    assert!(all_of(&journal).ends_with("\nopened\n"));
}

#[test]
fn a_journal_that_comes_back_is_connected_to_again() {
    let folder = Scratch::new();
    let (path, input) = (folder.join("journal"), folder.fifo("in"));
    let journal = listener(&path);
    let target = Journal::new().socket(&path).target();
    let mut monitor: Monitor = Ask::streams(uri(&input), target, NULL)
        .try_bind(&binder())
        .expect("bind");
    monitor.spawn("echo one; read line; echo two");
    let mut stream = accept(&journal);
    monitor.read_until(&mut stream, |read| read.ends_with(b"one\n"));
    forking(|| drop(stream));
    std::fs::write(&input, "go on\n").expect("write");
    assert_eq!(monitor.run_to_exit(), 0);
    monitor.finish();
    assert_eq!(all_of(&journal), "web-1\n\n6\n1\n0\n0\n0\ntwo\n");
}

#[test]
fn a_process_outlives_its_journal() {
    let folder = Scratch::new();
    let (path, input) = (folder.join("journal"), folder.fifo("in"));
    let journal = listener(&path);
    let target = Journal::new().socket(&path).target();
    let mut monitor: Monitor = Ask::streams(uri(&input), target, NULL)
        .try_bind(&binder())
        .expect("bind");
    // More than anything holds between the process and a journal.
    monitor.spawn("read line; head -c 1000000 /dev/zero && echo written && exit 5");
    forking(|| drop((accept(&journal), journal)));
    std::fs::write(&input, "go on\n").expect("write");
    assert_eq!(monitor.run_to_exit(), 5);
    monitor.finish();
}

#[test]
fn missing_journal_socket_is_named_with_remedy() {
    let folder = Scratch::new();
    let path = folder.join("none");
    let target = Journal::new().socket(&path).target();
    let error = refused(Ask::streams(NULL, target.clone(), NULL));
    assert_eq!(
        error,
        format!(
            "stdout: no journal listens at {}: No such file or directory (os error 2); \
             start systemd-journald, or choose another target, such as file:///path",
            path.display()
        )
    );

    // What was connected to before is let go of.
    let other = folder.join("journal");
    let journal = listener(&other);
    let first = Journal::new().socket(&other).target();
    assert!(refused(Ask::streams(NULL, first, target)).starts_with("stderr: no journal listens"));
    assert_eq!(all_of(&journal), "web-1\n\n6\n1\n0\n0\n0\n");

    // Nobody listens any more.
    drop(journal);
    let left = Journal::new().socket(&other).target();
    assert!(refused(Ask::streams(NULL, left, NULL)).contains("Connection refused"));
    let long = Journal::new().socket(format!("/{}", "x".repeat(200)));
    assert!(refused(Ask::streams(NULL, long.target(), NULL)).contains("File name too long"));
}

#[test]
fn journal_with_full_backlog_is_refused_without_waiting() {
    let folder = Scratch::new();
    let path = folder.join("journal");
    let flags = SockFlag::SOCK_CLOEXEC;
    let busy = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("socket");
    let address = UnixAddr::new(&path).expect("an address");
    bind(busy.as_raw_fd(), &address).expect("bind");
    listen(&busy, Backlog::new(0).expect("a backlog")).expect("listen");
    let ask = || {
        let target = Journal::new().socket(&path).target();
        Ask::streams(NULL, target, NULL).try_bind(&binder())
    };
    let mut waiting = Vec::new();
    let error = loop {
        match ask() {
            Ok(monitor) => waiting.push(monitor),
            Err(error) => break error.to_string(),
        }
        assert!(waiting.len() < 100, "a queue without an end");
    };
    assert!(error.contains("temporarily unavailable"), "{error}");
}

#[test]
fn terminal_stdin_and_bad_priority_are_refused_by_journal() {
    let folder = Scratch::new();
    let path = folder.join("journal");
    let _journal = listener(&path);
    let target = || Journal::new().socket(&path).target();
    let error = refused(Ask::terminal(NULL, target()));
    assert!(error.starts_with("stdout: a terminal's output cannot go to the journal"));
    let error = refused(Ask::streams(target(), NULL, NULL));
    assert!(error.starts_with("stdin: ") && error.contains("is no stream target"));
    let wrong = StreamTarget::Uri("journald://?priority=9".to_owned());
    let error = refused(Ask::streams(NULL, wrong, NULL));
    assert!(error.contains("priority"), "{error}");
}

#[test]
fn journal_binder_keeps_contract_for_journal_targets() {
    conformance::run(|| subject().connecting(Played::client).without_terminals());
}

#[test]
fn journal_binder_keeps_contract_for_other_targets() {
    conformance::run(subject);
}

fn subject() -> Subject {
    // The suite forks, and knows nothing of the tests beside it.
    let folder = Scratch::alone();
    Subject::new(binder(), folder.path()).keeping(folder)
}

/// A journal that is read from as the suite does.
#[derive(Debug)]
struct Played {
    listener: UnixListener,
    stream: Option<UnixStream>,
    /// How many lines are still to come before the text.
    header: usize,
}

impl Played {
    fn client(path: &Path) -> Client {
        let mut client = Client::of_fifos(path);
        let socket = path.with_extension("journal");
        let listener = listener(&socket);
        client.stdio.streams.stdout = Journal::new().socket(socket).target();
        client.output = Box::new(Self {
            listener,
            stream: None,
            header: 7,
        });
        client
    }
}

impl AsFd for Played {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Some(stream) => stream.as_fd(),
            None => self.listener.as_fd(),
        }
    }
}

impl Output for Played {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let (stream, _) = self.listener.accept()?;
                stream.set_nonblocking(true)?;
                self.stream.insert(stream)
            }
        };
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = stream.read(&mut bytes)?;
            let mut text = &bytes[..count];
            while self.header > 0
                && let Some(end) = text.iter().position(|&byte| byte == b'\n')
            {
                text = &text[end + 1..];
                self.header -= 1;
            }
            if count == 0 || !text.is_empty() {
                return Ok(text.to_vec());
            }
        }
    }
}

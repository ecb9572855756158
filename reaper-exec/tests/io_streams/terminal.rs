//! Terminals: pumped, or sent to a console socket.

use std::{
    fs::{self, File},
    io::{IoSliceMut, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::MetadataExt, net::UnixStream},
    },
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    poll::PollFlags,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use reaper_exec::io::{ChildStdio, StdioFds, StreamTarget};
use reaper_spec::ConsoleSize;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::support::{Ask, Monitor, Scratch, noise, pidfd_of, reader, uri, writer};

const NULL: StreamTarget = StreamTarget::Null;
const RAW: &str = "stty raw -echo; printf R;";

fn lines(text: &str) -> impl Fn(&[u8]) -> bool {
    move |got| got.ends_with(text.as_bytes())
}

#[test]
fn output_arrives_whole_whenever_the_reader_comes() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    // It fits into what is buffered on the way, so that the process need not wait for the reader.
    let wanted: String = (1..=9000).map(|line| format!("{line}\r\n")).collect();

    let mut monitor = Ask::terminal(NULL, uri(&out)).bind();
    monitor.spawn("seq 9000");
    assert_eq!(monitor.run_to_exit(), 0);
    assert!(!monitor.bound.is_finished());
    let mut client = reader(&out);
    assert!(
        monitor.read_to_end(&mut client) == wanted.as_bytes(),
        "a late reader's differs"
    );
    assert!(monitor.bound.is_finished());

    let mut client = reader(&out);
    let mut monitor = Ask::terminal(NULL, uri(&out)).bind();
    monitor.spawn("seq 9000");
    assert!(
        monitor.read_to_end(&mut client) == wanted.as_bytes(),
        "an early reader's differs"
    );
    monitor.finish();
}

#[test]
fn a_reader_gets_all_though_the_fifo_cannot_hold_it_until_it_comes() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    let mut monitor = Ask::terminal(NULL, uri(&out)).bind();
    // One page: the rest stays with the monitor, whose buffer is large enough for all of it.
    let pipe = File::options().read(true).write(true).open(&out);
    fcntl(pipe.expect("open"), FcntlArg::F_SETPIPE_SZ(4096)).expect("make it small");
    monitor.spawn("stty -opost; head -c 30000 /dev/zero | tr '\\0' x");
    assert_eq!(monitor.run_to_exit(), 0);
    let mut client = reader(&out);
    assert!(
        monitor.read_to_end(&mut client) == vec![b'x'; 30_000],
        "output was lost"
    );
    assert!(monitor.bound.is_finished());
}

#[test]
fn every_byte_passes_both_ways() {
    let folder = Scratch::new();
    let (input, out) = (folder.fifo("in"), folder.fifo("out"));
    let mut monitor = Ask::terminal(uri(&input), uri(&out)).bind();
    let mut client = reader(&out);
    let data = noise(512 << 10);
    monitor.spawn(&format!("{RAW} head -c {}", data.len()));
    monitor.read_until(&mut client, lines("R"));
    let source = writer(&input);
    let received = monitor.exchange(&mut client, Some((&source, &data)), |_| false);
    assert!(
        received == data,
        "{} of {} bytes, or others",
        received.len(),
        data.len()
    );
    assert_eq!(monitor.run_to_exit(), 0);
    monitor.finish();
}

#[test]
fn a_slow_reader_stops_the_process_and_not_the_monitor() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    let mut monitor = Ask::terminal(NULL, uri(&out)).bind();
    monitor.spawn("stty -opost; seq 100000; exit 4");
    let mut client = reader(&out);
    // Until all that is waited for is that the client reads.
    while waits_for(&monitor) != [PollFlags::POLLOUT] {
        monitor.turn(&[]);
    }
    assert!(monitor.exit.is_none());
    let wanted: String = (1..=100_000).map(|line| format!("{line}\n")).collect();
    assert!(
        monitor.read_to_end(&mut client) == wanted.as_bytes(),
        "the output differs"
    );
    assert_eq!(monitor.run_to_exit(), 4);
    monitor.finish();
}

fn waits_for(monitor: &Monitor) -> Vec<PollFlags> {
    let mut wanted = Vec::new();
    monitor.bound.interests(&mut wanted);
    wanted.into_iter().map(|(_, flags)| flags).collect()
}

#[test]
fn a_process_that_reads_nothing_stops_its_client_and_not_the_monitor() {
    let folder = Scratch::new();
    let (input, out) = (folder.fifo("in"), folder.fifo("out"));
    let mut monitor = Ask::terminal(uri(&input), uri(&out)).bind();
    let mut client = reader(&out);
    let go = folder.fifo("go");
    let mut gate = File::options().read(true).write(true).open(&go).unwrap();
    let data = noise(256 << 10);
    monitor.spawn(&format!(
        "{RAW} read line <>{}; head -c {}",
        go.display(),
        data.len()
    ));
    monitor.read_until(&mut client, lines("R"));
    let mut source = writer(&input);
    // The client writes until it would block, while the monitor waits for the terminal alone.
    let mut written = 0;
    loop {
        match source.write(&data[written..]) {
            Ok(count) => written += count,
            Err(_) if waits_for(&monitor) == [PollFlags::POLLIN | PollFlags::POLLOUT] => break,
            Err(_) => drop(monitor.turn(&[])),
        }
    }
    assert!(written < data.len());
    gate.write_all(b"go\n").unwrap();
    let received = monitor.exchange(&mut client, Some((&source, &data[written..])), |_| false);
    assert!(
        received == data,
        "{} of {} bytes, or others",
        received.len(),
        data.len()
    );
}

#[test]
fn clients_come_and_go_and_a_closed_input_leaves_the_terminal() {
    let folder = Scratch::new();
    let (input, out) = (folder.fifo("in"), folder.fifo("out"));
    let mut monitor = Ask::terminal(uri(&input), uri(&out)).bind();
    let mut client = reader(&out);
    monitor.spawn("stty -echo; echo ready; while read line; do echo got $line; done");
    monitor.read_until(&mut client, lines("ready\r\n"));
    for text in ["one", "two"] {
        writer(&input)
            .write_all(format!("{text}\n").as_bytes())
            .unwrap();
        let got = monitor.read_until(&mut client, lines("\n"));
        assert_eq!(String::from_utf8(got).unwrap(), format!("got {text}\r\n"));
    }
    // Closed with a client there: what it wrote is passed on. Ctrl-D is what ends a terminal.
    let mut last = writer(&input);
    monitor.bound.close_stdin();
    last.write_all(b"three\n\x04").unwrap();
    drop(last);
    assert_eq!(monitor.read_to_end(&mut client), b"got three\r\n");
    assert_eq!(monitor.run_to_exit(), 0);
    monitor.finish();
}

#[test]
fn a_terminal_without_streams_stops_nothing() {
    let _folder = Scratch::new();
    let mut monitor = Ask::terminal(NULL, NULL).bind();
    monitor.spawn("seq 100000; test -t 0 && test -t 1 && test -t 2 && exit 6");
    assert_eq!(monitor.run_to_exit(), 6);
    assert!(monitor.bound.is_finished());
}

#[test]
fn a_terminals_output_goes_to_a_file() {
    let folder = Scratch::new();
    let log = folder.join("log");
    let mut monitor = Ask::terminal(NULL, uri(format!("file://{}", log.display()))).bind();
    monitor.spawn("echo logged");
    assert_eq!(monitor.run_to_exit(), 0);
    assert!(monitor.bound.is_finished());
    assert_eq!(fs::read(&log).unwrap(), b"logged\r\n");
}

#[test]
fn output_arrives_after_program_reopens_its_terminal() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    let mut monitor = Ask::terminal(NULL, uri(&out)).bind();
    let mut client = reader(&out);
    monitor.spawn("echo one; exec <&- >&- 2>&-; echo two >/dev/tty");
    assert_eq!(monitor.read_to_end(&mut client), b"one\r\ntwo\r\n");
}

#[test]
fn process_sees_initial_terminal_size_and_resizes() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    let terminal = Some(Some(ConsoleSize {
        width: 101,
        height: 42,
    }));
    let mut monitor = Ask {
        terminal,
        ..Ask::terminal(NULL, uri(&out))
    }
    .bind();
    let mut client = reader(&out);
    monitor.spawn("sleep 1000 & trap \"stty size; kill $!; exit\" WINCH; stty size; wait");
    assert_eq!(monitor.read_until(&mut client, lines("\n")), b"42 101\r\n");
    monitor
        .bound
        .resize(ConsoleSize {
            width: 80,
            height: 25,
        })
        .unwrap();
    assert_eq!(monitor.read_to_end(&mut client), b"25 80\r\n");
    monitor.finish();
    monitor
        .bound
        .resize(ConsoleSize {
            width: 1,
            height: 1,
        })
        .expect("no terminal, no error");
}

#[test]
fn terminal_is_owned_by_process_user() {
    let folder = Scratch::new();
    let out = folder.fifo("out");
    let ask = Ask {
        owner: Some((65534, 65534)),
        ..Ask::terminal(NULL, uri(&out))
    };
    let mut monitor = ask.bind();
    let Some(ChildStdio::Terminal(slave)) = monitor.bound.take_child() else {
        panic!("no terminal")
    };
    assert_eq!(File::from(slave).metadata().unwrap().uid(), 65534);
}

#[test]
fn a_console_socket_gets_the_master_and_the_monitor_keeps_none() {
    let _folder = Scratch::new();
    let (engine, socket) = UnixStream::pair().unwrap();
    let attachments = StdioFds::new()
        .with_inherited(Default::default())
        .with_console_socket(Some(socket.into()));
    let terminal = Some(Some(ConsoleSize {
        width: 101,
        height: 42,
    }));
    let mut monitor = Ask {
        attachments,
        terminal,
        ..Ask::default()
    }
    .bind();
    let (mut master, name) = receive(&engine);
    assert!(name.starts_with("/dev/pts/"), "{name}");

    monitor.spawn("sleep 1000 & trap \"stty size; kill $!; exit 5\" WINCH; tty; stty size; wait");
    let wanted = format!("{name}\r\n42 101\r\n");
    let mut got = vec![0; wanted.len()];
    master.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), wanted);

    assert!(waits_for(&monitor).is_empty());
    monitor
        .bound
        .resize(ConsoleSize {
            width: 80,
            height: 25,
        })
        .unwrap();
    assert_eq!(monitor.run_to_exit(), 5);
    assert!(monitor.bound.is_finished());
    let mut got = Vec::new();
    // The end of a terminal is an error, EIO: nobody holds the other side.
    assert_eq!(
        master.read_to_end(&mut got).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    assert_eq!(String::from_utf8(got).unwrap(), "25 80\r\n");
}

#[test]
fn closed_console_socket_is_an_error() {
    let _folder = Scratch::new();
    let (engine, socket) = UnixStream::pair().unwrap();
    drop(engine);
    let attachments = StdioFds::new()
        .with_inherited(Default::default())
        .with_console_socket(Some(socket.into()));
    let error = Ask {
        attachments,
        ..Ask::terminal(NULL, NULL)
    }
    .refused();
    assert!(error.contains("console socket"), "{error}");
}

fn receive(socket: &UnixStream) -> (File, String) {
    let mut text = [0; 100];
    let mut buffers = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags).unwrap();
    let count = message.bytes;
    let Some(ControlMessageOwned::ScmRights(fds)) = message.cmsgs().unwrap().next() else {
        panic!("no descriptor")
    };
    // It comes as a number; this is the safe way to own what is behind it.
    let (_, own) = pidfd_of(std::process::id());
    let master = pidfd_getfd(own, fds[0], PidfdGetfdFlags::empty()).unwrap();
    nix::unistd::close(fds[0]).unwrap();
    (
        File::from(master),
        String::from_utf8_lossy(&text[..count]).into_owned(),
    )
}

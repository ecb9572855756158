//! Clients that do not behave, and programs that start containers in odd states.

use std::{
    io::{IoSlice, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::{Command, Stdio},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send,
        sendmsg, setsockopt, socket, sockopt,
    },
    sys::time::TimeVal,
};
use reaper_exec::{
    Engine, Error, ExecRequest, Executor, HostExecutor, Signal, engine,
    io::{StdioRequest, StreamTarget, Streams},
};
use reaper_spec::{Config, ContainerId, ExecId, Status};
use reaper_state::{FileStore, StateRoot};

use crate::{
    output::capture,
    rig::{Rig, cases, within_a_minute},
};

cases! {
    malformed_requests_get_error_or_disconnect,
    a_newer_protocol_is_refused_by_name,
    client_that_never_reads_does_not_block_others,
    thousands_of_requests_are_answered,
    too_many_descriptors_are_refused_with_the_limit,
    large_requests_reach_the_monitor,
    monitor_keeps_no_descriptor_of_its_starter,
    exit_codes_are_exact_when_starter_ignores_sigchld,
    slow_logger_delays_only_its_own_exec,
    a_creation_beyond_the_limit_asks_no_monitor,
}

/// A client that speaks the protocol by hand.
fn client(rig: &Rig, id: &ContainerId) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    let path = rig.root.path().join(id.as_str()).join("monitor");
    connect(socket.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    // Only a failing test waits so long.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(20, 0)).unwrap();
    socket
}

fn ask(socket: &OwnedFd, request: &str) -> nix::Result<usize> {
    let packet = format!("i{request}");
    send(
        socket.as_raw_fd(),
        packet.as_bytes(),
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
    )
}

/// The next answer; empty if the monitor has hung up.
fn answer(socket: &OwnedFd) -> String {
    let mut packet = vec![0; 64 * 1024];
    match recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
        Ok(length) => String::from_utf8(packet[..length].to_vec()).unwrap(),
        Err(nix::errno::Errno::ECONNRESET) => String::new(),
        Err(errno) => panic!("no answer: {errno}"),
    }
}

async fn malformed_requests_get_error_or_disconnect(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let socket = client(rig, &id);
    ask(&socket, "no json").unwrap();
    assert!(answer(&socket).contains("garbage"));
    ask(&socket, r#"{"version":1,"serial":7,"call":"Dance"}"#).unwrap();
    assert!(answer(&socket).contains("not known"));
    ask(&socket, &"[".repeat(30_000)).unwrap();
    assert!(answer(&socket).contains("garbage"));
    send(socket.as_raw_fd(), b"x", MsgFlags::empty()).unwrap();
    assert_eq!(answer(&socket), "", "hung up");
    // A document that would never end.
    let socket = client(rig, &id);
    let (reader, _writer) = std::io::pipe().unwrap();
    let fds = [reader.as_raw_fd()];
    let data = [IoSlice::new(b"m")];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &data, &rights, MsgFlags::empty(), None).unwrap();
    assert_eq!(answer(&socket), "", "hung up");
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Running);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_newer_protocol_is_refused_by_name(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let socket = client(rig, &id);
    ask(
        &socket,
        r#"{"version":99,"serial":7,"call":{"Juggle":{"balls":5}}}"#,
    )
    .unwrap();
    let refused = answer(&socket);
    assert!(
        refused.contains("\"serial\":7") && refused.contains("version 99"),
        "{refused}"
    );
    ask(&socket, r#"{"version":1,"serial":8,"call":"Observe"}"#).unwrap();
    assert!(answer(&socket).contains("running"));
    rig.engine.delete(&id, true).await.unwrap();
}

async fn client_that_never_reads_does_not_block_others(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let socket = client(rig, &id);
    let mut sent = 0;
    while ask(&socket, r#"{"version":1,"serial":1,"call":"Observe"}"#).is_ok() {
        sent += 1;
        // Lets the monitor take what is in the socket.
        rig.engine.executor().pids(&id).await.unwrap();
        assert!(sent < 5000, "the monitor keeps answers without end");
    }
    // Not before that client's connection is closed, if the monitor waited for it.
    within_a_minute(async {
        assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Running);
        rig.engine.delete(&id, true).await.unwrap();
    })
    .await;
    drop(socket);
}

async fn thousands_of_requests_are_answered(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let other = rig.another();
    for _ in 0..1000 {
        let (a, b, c) = tokio::join!(
            rig.engine.executor().state(&id),
            other.executor().pids(&id),
            rig.engine.executor().stats(&id)
        );
        a.unwrap();
        b.unwrap();
        c.unwrap();
    }
    rig.engine.delete(&id, true).await.unwrap();
}

async fn too_many_descriptors_are_refused_with_the_limit(rig: &Rig) {
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let (mut new, _output) = rig.shell("fds", "exec sleep 1000");
    let id = new.id.clone();
    new.preserve_fds = std::iter::repeat_with(null).take(124).collect();
    let refused = rig.engine.create(new).await.unwrap_err();
    assert!(refused.to_string().contains("123 is the most"), "{refused}");
    assert!(!rig.root.path().join("fds").exists());
    let (mut new, output) = rig.shell("fds", "ls /proc/self/fd | wc -l; exec sleep 1000");
    new.preserve_fds = std::iter::repeat_with(null).take(123).collect();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let mut output = output;
    assert_eq!(output.line(), "127");
    let request = ExecRequest::new(rig.process(&["true"]))
        .with_stdio(capture().0)
        .with_preserve_fds(std::iter::repeat_with(null).take(124).collect());
    let exec = ExecId::new("e").unwrap();
    let refused = rig
        .engine
        .executor()
        .exec(&id, &exec, request)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("123 is the most"), "{refused}");
    rig.engine.delete(&id, true).await.unwrap();
}

async fn large_requests_reach_the_monitor(rig: &Rig) {
    let (stdio, output) = capture();
    let mut process = rig.process(&["/bin/sh", "-c", "echo ${#A} ${#B} ${#C}"]);
    for name in ["A", "B", "C"] {
        process.env.push(format!("{name}={}", "x".repeat(100_000)));
    }
    let new = rig.container("large", process, stdio);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    assert_eq!(output.all(), "100000 100000 100000\n");
    rig.engine.delete(&id, false).await.unwrap();
}

async fn monitor_keeps_no_descriptor_of_its_starter(rig: &Rig) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl(writer.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    drop(writer);
    let ended = tokio::task::spawn_blocking(move || reader.read(&mut [0]).unwrap());
    // It would never end if the monitor held the pipe.
    let read = within_a_minute(ended).await;
    assert_eq!(read.unwrap(), 0);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn exit_codes_are_exact_when_starter_ignores_sigchld(_rig: &Rig) {
    let run = Command::new("/bin/sh")
        .args(["-c", "trap '' CHLD; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "exit_codes_and_signals_are_exact"])
        .stdout(Stdio::null())
        .status();
    assert!(run.unwrap().success());
}

async fn slow_logger_delays_only_its_own_exec(rig: &Rig) {
    let (id, _output) = rig.start_shell("main", "exec sleep 1000").await;
    let folder = tempfile::tempdir().unwrap();
    let (logger, gate) = (folder.path().join("logger"), folder.path().join("gate"));
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "#!/bin/sh\nread line <{}\nexec 5>&-\ncat <&3\n",
        gate.display()
    );
    // By a program of its own: what other tests fork meanwhile has no copy of a descriptor for
    // writing, with which the script could not be executed (ETXTBSY).
    let written = Command::new("sh")
        .args(["-c", r#"printf %s "$1" >"$0" && chmod 755 "$0""#])
        .args([logger.as_os_str(), script.as_ref()])
        .status();
    assert!(written.unwrap().success());
    let target = StreamTarget::Uri(format!("binary://{}", logger.display()));
    let request = ExecRequest::new(rig.process(&["true"]))
        .with_stdio(StdioRequest::new(Streams::new().with_stdout(target)));
    let exec = ExecId::new("logged").unwrap();
    let other = rig.another();
    let meanwhile = async {
        // The logger is at its gate until all of them are answered.
        within_a_minute(async {
            for _ in 0..10 {
                assert_eq!(other.state(&id).await.unwrap().status, Status::Running);
            }
        })
        .await;
        tokio::task::spawn_blocking(move || std::fs::write(gate, "\n"))
            .await
            .unwrap()
            .unwrap();
    };
    let (made, ()) = tokio::join!(rig.engine.executor().exec(&id, &exec, request), meanwhile);
    made.unwrap();
    rig.engine.kill(&id, Signal::KILL, true).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    let late = rig.engine.kill(&id, Signal::KILL, true).await.unwrap_err();
    assert!(
        matches!(late, engine::Error::Executor(Error::Ended(_))),
        "{late}"
    );
    rig.engine.delete(&id, false).await.unwrap();
}

/// An engine of another program on the same root.
fn other_program(rig: &Rig) -> Engine<HostExecutor, FileStore> {
    let root = StateRoot::new(rig.root.path());
    Engine::new(
        HostExecutor::new(root.clone()),
        rig.engine.store().clone(),
        root,
    )
}

/// How many descriptors the monitor of a container has: one for each client.
async fn descriptors_of_monitor(rig: &Rig, id: &ContainerId) -> usize {
    let monitor = rig.engine.state(id).await.unwrap().monitor.unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", monitor.pid));
    open.unwrap().count()
}

async fn a_creation_beyond_the_limit_asks_no_monitor(rig: &Rig) {
    let (id, _output) = rig.start_shell("first", "exec sleep 1000").await;
    let mut config = Config::default();
    config.apply_options("[policy]\ncontainers = 1\n").unwrap();
    let limits = config.policy.container_limits();
    let program = other_program(rig);
    let before = descriptors_of_monitor(rig, &id).await;
    let (new, _output) = rig.shell("more", "true");
    let refused = program.create_within(new, &limits).await;
    assert!(matches!(refused, Err(engine::Error::Policy(_))));
    assert_eq!(descriptors_of_monitor(rig, &id).await, before);
    // This is what would be seen.
    program.executor().state(&id).await.unwrap();
    assert_eq!(descriptors_of_monitor(rig, &id).await, before + 1);
    rig.engine.delete(&id, true).await.unwrap();
}

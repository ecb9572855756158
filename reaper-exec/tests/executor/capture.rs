//! Output that comes to the program that embeds the engine.

use reaper_exec::{
    ExecRequest, Executor as _, Target,
    io::{Capture, OutputStream, StreamTarget},
};
use reaper_spec::{ContainerId, ExecId, ExitStatus};

use crate::rig::{Rig, cases};

cases! {
    capture_yields_both_outputs_in_one_order,
    capture_yields_all_output_even_when_read_after_exit,
    an_execd_process_has_its_own_capture,
    dropped_capture_does_not_block_or_kill_the_process,
    capture_ends_when_create_fails_or_nothing_started,
}

fn exited(code: u8) -> ExitStatus {
    ExitStatus::Exited { code }
}

/// Starts a container that runs a line of shell, and captures its output.
async fn start(rig: &Rig, id: &str, script: &str) -> (ContainerId, Capture) {
    let (stdio, capture) = Capture::new().unwrap();
    let new = rig.container(id, rig.process(&["/bin/sh", "-c", script]), stdio);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    (id, capture)
}

async fn capture_yields_both_outputs_in_one_order(rig: &Rig) {
    let gate = rig.root.path().with_extension("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("echo one; read x <{}; echo two >&2; exit 3", gate.display());
    let (id, mut capture) = start(rig, "c", &script).await;
    let first = capture.next().await.unwrap().unwrap();
    assert_eq!(
        (first.output, &first.bytes[..]),
        (OutputStream::Stdout, &b"one\n"[..])
    );
    std::fs::write(&gate, "go\n").unwrap();
    let second = capture.next().await.unwrap().unwrap();
    assert_eq!(
        (second.output, &second.bytes[..]),
        (OutputStream::Stderr, &b"two\n"[..])
    );
    assert_eq!(capture.next().await.unwrap(), None);
    assert_eq!(capture.next().await.unwrap(), None, "the end stays");
    assert_eq!(rig.engine.wait(&id).await.unwrap().status, exited(3));
    rig.engine.delete(&id, false).await.unwrap();
    std::fs::remove_file(gate).unwrap();
}

async fn capture_yields_all_output_even_when_read_after_exit(rig: &Rig) {
    let (id, capture) = start(rig, "c", "head -c 3000000 /dev/zero; echo end >&2").await;
    let all = capture.all().await.unwrap();
    assert_eq!(
        (all.stdout.len(), &all.stderr[..]),
        (3_000_000, &b"end\n"[..])
    );
    // What was written before the end is there after it, also if nobody has asked before.
    rig.engine.wait(&id).await.unwrap();
    rig.engine.delete(&id, false).await.unwrap();
    let (id, capture) = start(rig, "c", "echo late").await;
    rig.engine.wait(&id).await.unwrap();
    rig.engine.delete(&id, false).await.unwrap();
    assert_eq!(capture.all().await.unwrap().stdout, b"late\n");
}

async fn an_execd_process_has_its_own_capture(rig: &Rig) {
    let (id, capture) = start(rig, "c", "echo init; exec sleep 1000").await;
    let (stdio, execs) = Capture::new().unwrap();
    let exec = ExecId::new("e").unwrap();
    let request = ExecRequest::new(rig.process(&["/bin/echo", "exec"])).with_stdio(stdio);
    let executor = rig.engine.executor();
    executor.exec(&id, &exec, request).await.unwrap();
    let target = Target::Exec(id.clone(), exec);
    executor.start(&target).await.unwrap();
    assert_eq!(execs.all().await.unwrap().stdout, b"exec\n");
    assert_eq!(executor.wait(&target).await.unwrap().status, exited(0));
    rig.engine.delete(&id, true).await.unwrap();
    assert_eq!(capture.all().await.unwrap().stdout, b"init\n");
}

async fn dropped_capture_does_not_block_or_kill_the_process(rig: &Rig) {
    // More than any pipe holds: it would wait for ever, or be killed by SIGPIPE.
    let (id, mut capture) = start(rig, "c", "echo on; head -c 1000000 /dev/zero; exit 4").await;
    capture.next().await.unwrap().unwrap();
    drop(capture);
    assert_eq!(rig.engine.wait(&id).await.unwrap().status, exited(4));
    rig.engine.delete(&id, false).await.unwrap();
}

async fn capture_ends_when_create_fails_or_nothing_started(rig: &Rig) {
    let (mut stdio, capture) = Capture::new().unwrap();
    stdio.streams.stderr = StreamTarget::Uri("of-nobody".to_owned());
    let new = rig.container("c", rig.process(&["true"]), stdio);
    rig.engine.create(new).await.unwrap_err();
    assert_eq!(capture.all().await.unwrap(), Default::default());

    let (stdio, capture) = Capture::new().unwrap();
    let new = rig.container("c", rig.process(&["true"]), stdio);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.delete(&id, true).await.unwrap();
    assert_eq!(capture.all().await.unwrap(), Default::default());
}

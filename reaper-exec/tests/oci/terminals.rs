//! Terminals that the runtime makes, in the container's devpts.

use std::{fs, path::Path};

use nix::{sys::stat::Mode, unistd::mkfifo};
use reaper_exec::{
    Executor, Target,
    io::{StdioRequest, StreamTarget, Streams},
};
use reaper_spec::ConsoleSize;

use crate::{
    output::capture,
    rig::{Rig, cases, exec_request},
};

cases! {
    init_gets_terminal_of_requested_size_from_container,
    exec_terminal_keeps_size_set_before_start,
}

/// Output to a file; the monitor writes it all before it tells the end.
fn to_file(path: &Path) -> StdioRequest {
    StdioRequest::new(
        Streams::default().with_stdout(StreamTarget::Uri(format!("file://{}", path.display()))),
    )
}

async fn init_gets_terminal_of_requested_size_from_container(rig: &Rig) {
    let output = rig.path("output");
    let mut process = rig.shell("tty; stty size; echo done; exit 4");
    process.terminal = true;
    process.console_size = Some(ConsoleSize {
        width: 100,
        height: 30,
    });
    let new = rig.container("web", process, to_file(&output), |_| {});
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status.code(), 4);
    rig.engine.delete(&id, false).await.unwrap();
    let text = fs::read_to_string(output).unwrap();
    assert_eq!(text, "/dev/pts/0\r\n30 100\r\ndone\r\n");
}

async fn exec_terminal_keeps_size_set_before_start(rig: &Rig) {
    let (stdio, _output) = capture();
    let new = rig.container("web", rig.process(&["sleep", "1000"]), stdio, |_| {});
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let output = rig.path("output");
    // crun does not know the size of an exec's terminal: it has it when its start is answered.
    let mut process = rig.shell("read word; stty size; echo $word; exit 6");
    process.terminal = true;
    let mut stdio = to_file(&output);
    let input = rig.path("input");
    mkfifo(&input, Mode::S_IRWXU).unwrap();
    stdio.streams.stdin = StreamTarget::Uri(format!("fifo://{}", input.display()));
    let exec = "one".parse().unwrap();
    let executor = rig.engine.executor();
    executor
        .exec(&id, &exec, exec_request(process, stdio))
        .await
        .unwrap();
    let target = Target::Exec(id.clone(), exec);
    let size = ConsoleSize {
        width: 77,
        height: 33,
    };
    executor.resize_pty(&target, size).await.unwrap();
    executor.start(&target).await.unwrap();
    fs::write(&input, "word\n").unwrap();
    assert_eq!(executor.wait(&target).await.unwrap().status.code(), 6);
    executor.delete(&target).await.unwrap();
    let text = fs::read_to_string(output).unwrap();
    assert!(text.ends_with("33 77\r\nword\r\n"), "{text:?}");
    rig.engine.delete(&id, true).await.unwrap();
}

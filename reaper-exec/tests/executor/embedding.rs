//! Programs that embed the engine: what they drop in the middle, and what they fork.

use std::{
    future::{Future, poll_fn},
    path::Path,
    pin::pin,
    process::{Command, Stdio},
    task::Poll,
    thread,
};

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};
use reaper_exec::{ExecRequest, Executor as _, Signal, Target, engine::Error, io::StdioRequest};
use reaper_spec::{ContainerId, ExecId, Status};

use crate::rig::{Rig, Root, cases, within_a_minute};

cases! {
    creation_dropped_at_any_await_is_deleted_whole,
    operations_dropped_at_any_await_leave_nothing,
    container_outlives_a_runtime_dropped_in_the_middle,
    both_halves_of_a_forked_program_use_one_container,
}

/// Polls `work` so many times at most, and drops it then.
async fn polled<T>(work: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut work = pin!(work);
    let mut left = times;
    poll_fn(|context| {
        let Some(fewer) = left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        left = fewer;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

async fn creation_dropped_at_any_await_is_deleted_whole(rig: &Rig) {
    for times in 0.. {
        let other = rig.another();
        let (new, _output) = rig.shell("dropped", "exec sleep 1000");
        let id = new.id.clone();
        let created = polled(other.create(new), times).await;
        drop(other);
        match within_a_minute(rig.engine.delete(&id, true)).await {
            // It was not polled once.
            Err(Error::Store(reaper_state::Error::NotFound { .. })) if times == 0 => {}
            deleted => drop(deleted.unwrap()),
        }
        assert_eq!(rig.engine.list().await.unwrap(), []);
        if let Some(created) = created {
            created.unwrap();
            assert!(times > 1, "it was never dropped in the middle");
            return;
        }
    }
}

/// What is dropped in the middle of a container's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Start,
    Exec,
    Pause,
    Kill,
    Delete,
}

/// Begins an operation by an engine that no longer exists when this returns. Whether it was done.
async fn begin(rig: &Rig, id: &ContainerId, operation: Operation, times: usize) -> bool {
    let other = rig.another();
    match operation {
        Operation::Start => polled(other.start(id), times).await.is_some(),
        Operation::Pause => polled(other.pause(id), times).await.is_some(),
        Operation::Kill => {
            let killed = polled(other.kill(id, Signal::KILL, true), times).await;
            killed.is_some()
        }
        Operation::Delete => polled(other.delete(id, true), times).await.is_some(),
        Operation::Exec => {
            let exec: ExecId = "one".parse().unwrap();
            let target = Target::Exec(id.clone(), exec.clone());
            let request = ExecRequest::new(rig.process(&["sleep", "1000"]));
            let added = async {
                other.executor().exec(id, &exec, request).await?;
                other.executor().start(&target).await
            };
            polled(added, times).await.is_some()
        }
    }
}

async fn operations_dropped_at_any_await_leave_nothing(rig: &Rig) {
    use Operation::{Delete, Exec, Kill, Pause, Start};
    for operation in [Start, Exec, Pause, Kill, Delete] {
        for times in 0.. {
            let (new, _output) = rig.shell("dropped", "exec sleep 1000");
            let id = new.id.clone();
            rig.engine.create(new).await.unwrap();
            if operation != Start {
                rig.engine.start(&id).await.unwrap();
            }
            let is_done = begin(rig, &id, operation, times).await;
            match within_a_minute(rig.engine.delete(&id, true)).await {
                Err(Error::Store(reaper_state::Error::NotFound { .. })) if operation == Delete => {}
                deleted => drop(deleted.unwrap()),
            }
            assert_eq!(
                rig.engine.list().await.unwrap(),
                [],
                "{operation:?} {times}"
            );
            assert!(!rig.marked_process_exists(), "{operation:?} {times}");
            if is_done {
                assert!(times > 1, "{operation:?} was never dropped in the middle");
                break;
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

async fn container_outlives_a_runtime_dropped_in_the_middle(rig: &Rig) {
    let (new, _output) = rig.shell("kept", "exec sleep 1000");
    let id = new.id.clone();
    let embed = || {
        let engine = rig.another();
        let runtime = runtime();
        runtime.block_on(async {
            engine.create(new).await.unwrap();
            engine.start(&id).await.unwrap();
            tokio::select! {
                biased;
                early = engine.wait(&id) => panic!("it has not ended: {early:?}"),
                state = engine.state(&id) => drop(state.unwrap()),
            }
        });
        // The engine's connections are those of a runtime that no longer exists.
        drop(runtime);
    };
    // A runtime cannot be dropped in another.
    thread::scope(|scope| scope.spawn(embed).join().unwrap());
    let record = rig.engine.state(&id).await.unwrap();
    assert_eq!(record.status, Status::Running);
    rig.engine.kill(&id, Signal::KILL, true).await.unwrap();
    let exit = within_a_minute(rig.engine.wait(&id)).await.unwrap();
    assert_eq!(exit.status.code(), 137);
    rig.engine.delete(&id, false).await.unwrap();
}

async fn both_halves_of_a_forked_program_use_one_container(rig: &Rig) {
    let program = Command::new(std::env::current_exe().unwrap())
        .args(["--fork".as_ref(), rig.root.path().as_os_str()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&program.stderr);
    assert!(program.status.success(), "{}: {said}", program.status);
    assert_eq!(rig.engine.list().await.unwrap(), []);
}

/// A program that forks while a container of its runs below `root`. The child ends it by an engine and
/// a runtime of its own, the parent waits for it and deletes it by those that it had before.
pub(crate) fn fork_and_use(root: &Path) {
    let rig = Rig::at(Root::Others(root.to_owned()));
    let process = rig.process(&["sleep", "1000"]);
    let new = rig.container("forked", process, StdioRequest::default());
    let id = new.id.clone();
    let before = runtime();
    before.block_on(async {
        rig.engine.create(new).await.unwrap();
        rig.engine.start(&id).await.unwrap();
    });
    // SAFETY: this process has one thread.
    #[allow(unsafe_code)]
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            runtime().block_on(end(&rig, &id));
            // Without the end of what is the parent's.
            std::process::exit(0);
        }
        ForkResult::Parent { child } => {
            let exit = before.block_on(within_a_minute(rig.engine.wait(&id)));
            let exit = exit.unwrap();
            assert_eq!(exit.status.code(), 137);
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            let deleted = before.block_on(rig.engine.delete(&id, false));
            assert_eq!(deleted.unwrap(), Some(exit));
        }
    }
}

async fn end(rig: &Rig, id: &ContainerId) {
    let own = rig.another();
    own.kill(id, Signal::KILL, true).await.unwrap();
    let exit = within_a_minute(own.wait(id)).await.unwrap();
    assert_eq!(exit.status.code(), 137);
}

//! The rules.

use std::{future::Future, pin::Pin};

use reaper_spec::{Exit, ExitStatus, Status};

use super::{Program, Subject, output::OutputReader};
use crate::{
    executor::{Error, Result, Target},
    procfs,
    signal::Signal,
};

pub(super) const KILLED: ExitStatus = ExitStatus::Signaled {
    signal: 9,
    core: false,
};

pub(super) async fn created_process_waits_for_start(subject: &Subject) {
    let target = Target::Init(subject.create(Program::Ends(3)).await);
    assert_eq!(subject.status(&target).await, Status::Created);
    let pids = subject.executor.pids(target.container()).await;
    assert_eq!(pids.expect("pids").len(), 1);
    subject.clean(&target).await;
}

pub(super) type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Exit>> + Send + 'a>>;

/// Does something else while `waiting` has to go on.
pub(super) async fn meanwhile<T>(waiting: &mut Waiting<'_>, act: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        early = waiting => panic!("a wait was answered before the process had exited: {early:?}"),
        done = act => done,
    }
}

pub(super) async fn wait_is_not_answered_before_the_exit(subject: &Subject) {
    let executor = &subject.executor;
    let target = Target::Init(subject.create(Program::Lasts).await);
    let mut waiting = executor.wait(&target);
    assert_eq!(
        meanwhile(&mut waiting, subject.status(&target)).await,
        Status::Created
    );
    let started = meanwhile(&mut waiting, executor.start(&target)).await;
    let process = started.expect("start");
    let another = async {
        let exec = subject
            .start_exec(target.container(), "one", Program::Ends(2))
            .await;
        executor.wait(&exec).await.expect("wait for the exec")
    };
    assert_eq!(meanwhile(&mut waiting, another).await.status.code(), 2);
    assert_eq!(
        meanwhile(&mut waiting, subject.status(&target)).await,
        Status::Running
    );
    subject.kill(&target).await.expect("kill");
    assert_eq!(waiting.await.expect("wait").status, KILLED);
    assert_eq!(subject.status(&target).await, Status::Stopped);
    if subject.processes {
        assert!(!procfs::is_alive(&process), "{process:?} is alive");
    }
    subject.clean(&target).await;
}

pub(super) async fn exit_status_is_kept_until_delete(subject: &Subject) {
    let target = subject.start(Program::Ends(3)).await;
    let exit = subject.executor.wait(&target).await.expect("wait");
    assert_eq!(exit.status, ExitStatus::Exited { code: 3 });
    assert_eq!(
        subject.executor.wait(&target).await.expect("wait again"),
        exit
    );
    let seen = subject
        .executor
        .state(target.container())
        .await
        .expect("observe");
    assert_eq!(
        (seen.status, seen.exit),
        (Status::Stopped, Some(exit.clone()))
    );
    let deleted = subject.executor.delete(&target).await.expect("delete");
    assert_eq!(deleted, Some(exit));
    assert_eq!(
        subject
            .executor
            .delete(&target)
            .await
            .expect("delete again"),
        None
    );
    for gone in [
        subject.executor.wait(&target).await.map(drop),
        subject.executor.state(target.container()).await.map(drop),
    ] {
        assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
    }
}

pub(super) async fn every_waiter_gets_the_exit_status(subject: &Subject) {
    let target = Target::Init(subject.create(Program::Ends(7)).await);
    let executor = &subject.executor;
    let (first, second, started, third) = tokio::join!(
        executor.wait(&target),
        executor.wait(&target),
        executor.start(&target),
        executor.wait(&target),
    );
    started.expect("start");
    for exit in [first, second, third] {
        assert_eq!(exit.expect("wait").status, ExitStatus::Exited { code: 7 });
    }
    subject.clean(&target).await;
}

pub(super) async fn missing_program_is_reported_and_leaves_no_running_process(subject: &Subject) {
    let target = match subject.try_create(Program::Missing).await {
        Ok(id) => Target::Init(id),
        // It was looked for at once. Then nothing is left.
        Err(refused) => {
            assert!(matches!(refused, Error::Execve { .. }), "{refused:?}");
            let id = "conformance".parse().expect("an id");
            let seen = subject.executor.state(&id).await;
            assert!(matches!(seen, Err(Error::NotFound(_))), "{seen:?}");
            return;
        }
    };
    let refused = subject.executor.start(&target).await;
    assert!(matches!(refused, Err(Error::Execve { .. })), "{refused:?}");
    assert_eq!(subject.status(&target).await, Status::Stopped);
    let exit = subject.executor.wait(&target).await.expect("wait");
    assert_ne!(exit.status.code(), 0);
    subject.clean(&target).await;
}

/// It was refused since the process runs.
fn assert_runs<T: std::fmt::Debug>(refused: Result<T>) {
    let running = matches!(
        refused,
        Err(Error::Status {
            status: Status::Running,
            ..
        })
    );
    assert!(running, "{refused:?}");
}

pub(super) async fn a_second_start_is_refused(subject: &Subject) {
    let target = subject.start(Program::Lasts).await;
    let refused = subject.executor.start(&target).await;
    assert_runs(refused);
    subject.clean(&target).await;
}

pub(super) async fn kill_ends_created_process_before_start(subject: &Subject) {
    let target = Target::Init(subject.create(Program::Ends(0)).await);
    subject.kill(&target).await.expect("kill");
    assert_eq!(
        subject.executor.wait(&target).await.expect("wait").status,
        KILLED
    );
    assert!(subject.executor.start(&target).await.is_err());
    subject.clean(&target).await;
}

pub(super) async fn kill_of_exited_or_unknown_process_is_refused(subject: &Subject) {
    let never = Target::Init("never".parse().expect("an id"));
    let refused = subject.executor.kill(&never, Signal::TERM, false).await;
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    let target = subject.start(Program::Ends(0)).await;
    subject.executor.wait(&target).await.expect("wait");
    let refused = subject.kill(&target).await;
    assert!(matches!(refused, Err(Error::Ended(_))), "{refused:?}");
    subject.clean(&target).await;
}

pub(super) async fn kill_of_exited_exec_reaches_no_other_process(subject: &Subject) {
    let target = subject.start(Program::Lasts).await;
    let exec = subject
        .start_exec(target.container(), "one", Program::Ends(0))
        .await;
    subject.executor.wait(&exec).await.expect("wait");
    let refused = subject.kill(&exec).await;
    assert!(matches!(refused, Err(Error::Ended(_))), "{refused:?}");
    subject.executor.delete(&exec).await.expect("delete");
    let refused = subject.kill(&exec).await;
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    assert_eq!(subject.status(&target).await, Status::Running);
    subject.clean(&target).await;
}

pub(super) async fn kill_of_all_reaches_execs_too(subject: &Subject) {
    let executor = &subject.executor;
    let target = subject.start_ignoring().await;
    let exec = subject
        .start_exec(target.container(), "one", Program::Lasts)
        .await;
    let mut waiting = executor.wait(&exec);
    let alone = executor.kill(&target, Signal::TERM, false);
    meanwhile(&mut waiting, alone)
        .await
        .expect("kill init alone");
    meanwhile(&mut waiting, subject.status(&target)).await;
    let all = executor.kill(&target, Signal::TERM, true).await;
    all.expect("kill all");
    let terminated = ExitStatus::Signaled {
        signal: Signal::TERM.number(),
        core: false,
    };
    assert_eq!(waiting.await.expect("wait").status, terminated);
    assert_eq!(subject.status(&target).await, Status::Running);
    subject.clean(&target).await;
}

pub(super) async fn delete_of_running_process_is_refused(subject: &Subject) {
    let target = subject.start(Program::Lasts).await;
    let refused = subject.executor.delete(&target).await;
    assert_runs(refused);
    assert_eq!(subject.status(&target).await, Status::Running);
    subject.clean(&target).await;
}

pub(super) async fn an_exec_needs_a_running_container(subject: &Subject) {
    let target = Target::Init(subject.create(Program::Ends(0)).await);
    let id = target.container();
    let refused = subject.exec(id, "early", Program::Lasts).await;
    let created = matches!(
        refused,
        Err(Error::Status {
            status: Status::Created,
            ..
        })
    );
    assert!(created, "{refused:?}");
    subject.executor.start(&target).await.expect("start");
    subject.executor.wait(&target).await.expect("wait");
    let refused = subject.exec(id, "late", Program::Lasts).await;
    let stopped = matches!(
        refused,
        Err(Error::Status {
            status: Status::Stopped,
            ..
        })
    );
    assert!(stopped, "{refused:?}");
    subject.clean(&target).await;
}

pub(super) async fn exec_id_is_taken_until_delete(subject: &Subject) {
    let target = subject.start(Program::Lasts).await;
    let id = target.container();
    let exec = subject
        .exec(id, "same", Program::Ends(5))
        .await
        .expect("exec");
    let taken = subject.exec(id, "same", Program::Lasts).await;
    assert!(matches!(taken, Err(Error::AlreadyExists(_))), "{taken:?}");
    subject.executor.start(&exec).await.expect("start");
    let exit = subject.executor.wait(&exec).await.expect("wait");
    assert_eq!(exit.status, ExitStatus::Exited { code: 5 });
    assert_eq!(
        subject.executor.delete(&exec).await.expect("delete"),
        Some(exit)
    );
    assert_eq!(
        subject.executor.delete(&exec).await.expect("delete again"),
        None
    );
    subject
        .exec(id, "same", Program::Lasts)
        .await
        .expect("exec again");
    subject.clean(&target).await;
}

pub(super) async fn exec_with_a_used_id_is_another_process(subject: &Subject) {
    let executor = &subject.executor;
    let target = subject.start(Program::Lasts).await;
    let first = subject
        .start_exec(target.container(), "same", Program::Ends(5))
        .await;
    executor.wait(&first).await.expect("wait");
    executor.delete(&first).await.expect("delete");
    let second = subject
        .start_exec(target.container(), "same", Program::Lasts)
        .await;
    let mut waiting = executor.wait(&second);
    meanwhile(&mut waiting, subject.status(&target)).await;
    subject.kill(&second).await.expect("kill");
    assert_eq!(waiting.await.expect("wait").status, KILLED);
    assert_eq!(subject.status(&target).await, Status::Running);
    subject.clean(&target).await;
}

pub(super) async fn killed_exec_leaves_container_running(subject: &Subject) {
    let target = subject.start(Program::Lasts).await;
    let exec = subject
        .exec(target.container(), "one", Program::Lasts)
        .await
        .expect("exec");
    subject.executor.start(&exec).await.expect("start");
    subject.kill(&exec).await.expect("kill");
    assert_eq!(
        subject.executor.wait(&exec).await.expect("wait").status,
        KILLED
    );
    assert_eq!(subject.status(&target).await, Status::Running);
    subject.clean(&target).await;
}

pub(super) async fn deleted_exec_leaves_no_stream_open(subject: &Subject) {
    if !subject.processes {
        return;
    }
    let target = subject.start(Program::Lasts).await;
    let (stdio, mut output) = OutputReader::below(subject.root.path());
    let mut process = subject.process(Program::Ends(3));
    process.terminal = true;
    let exec = subject
        .exec_with(target.container(), "one", process, stdio)
        .await
        .expect("exec with a terminal");
    subject.executor.start(&exec).await.expect("start");
    let exit = subject.executor.wait(&exec).await.expect("wait");
    assert_eq!(exit.status, ExitStatus::Exited { code: 3 });
    subject.executor.delete(&exec).await.expect("delete");
    output.end().await;
    subject.clean(&target).await;
}

pub(super) async fn execs_end_before_init(subject: &Subject) {
    let target = subject.start(Program::Lasts).await;
    let exec = subject
        .exec(target.container(), "one", Program::Lasts)
        .await
        .expect("exec");
    subject.executor.start(&exec).await.expect("start");
    subject.kill(&target).await.expect("kill");
    let init = subject.executor.wait(&target).await.expect("wait");
    let ended = subject.executor.delete(&exec).await.expect("it has ended");
    let ended = ended.expect("its end is known");
    assert!(
        ended.at <= init.at || ended.status == KILLED,
        "{ended:?} {init:?}"
    );
    subject.clean(&target).await;
}

pub(super) async fn a_new_executor_knows_containers_and_exits(subject: &Subject) {
    let Some(reopen) = &subject.reopen else {
        return;
    };
    let target = subject.start(Program::Lasts).await;
    let id = target.container();
    let exec = subject.start_exec(id, "one", Program::Lasts).await;
    let second = reopen();
    let seen = second.state(id).await.expect("a running container");
    assert_eq!((seen.status, seen.exit), (Status::Running, None));
    let killed = second.kill(&exec, Signal::KILL, false).await;
    killed.expect("kill the exec");
    let ended = second.wait(&exec).await.expect("wait for the exec");
    assert_eq!(ended.status, KILLED);
    let third = reopen();
    let again = third.wait(&exec).await.expect("the exit of the exec");
    assert_eq!(again, ended);
    let killed = third.kill(&target, Signal::KILL, false).await;
    killed.expect("kill init");
    let exit = third.wait(&target).await.expect("wait for init");
    let fourth = reopen();
    let seen = fourth.state(id).await.expect("a stopped container");
    assert_eq!(
        (seen.status, seen.exit),
        (Status::Stopped, Some(exit.clone()))
    );
    let deleted = fourth.delete(&target).await.expect("delete");
    assert_eq!(deleted, Some(exit));
    let gone = subject.executor.state(id).await;
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
}

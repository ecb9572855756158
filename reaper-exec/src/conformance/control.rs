//! The rules of what is done to a container that runs: freezing it, limiting it, measuring it.

use std::{fmt::Debug, time::Duration};

use reaper_spec::{ContainerId, ExitStatus, Resources, Status};

use super::{
    Program, Subject,
    rules::{KILLED, meanwhile},
};
use crate::{
    executor::{Error, Result, Stats, Target},
    signal::Signal,
};

/// How long a process is given that would handle a signal at once if it were not frozen.
const MOMENT: Duration = Duration::from_millis(200);

/// A limit that no container of the suite comes near.
const LIMIT: u64 = 1000;

/// More CPUs than there are.
const MISSING_CPUS: &str = "100000";

/// It was refused because of a status.
fn assert_refused<T: Debug>(refused: Result<T>, because: Status) {
    let expected = matches!(&refused, Err(Error::Status { status, .. }) if *status == because);
    assert!(expected, "{because:?}: {refused:?}");
}

fn is_unsupported<T>(answer: &Result<T>) -> bool {
    matches!(answer, Err(Error::Unsupported { .. }))
}

fn unknown() -> ContainerId {
    "never".parse().expect("an id")
}

/// Freezes a container that runs. Where the executor cannot, it runs on.
async fn pause(subject: &Subject, target: &Target) -> bool {
    let paused = subject.executor.pause(target.container()).await;
    let is_possible = !is_unsupported(&paused);
    if is_possible {
        paused.expect("pause");
    }
    let expected = if is_possible {
        Status::Paused
    } else {
        Status::Running
    };
    assert_eq!(subject.status(target).await, expected);
    is_possible
}

pub(super) async fn paused_container_runs_nothing_until_it_is_resumed(subject: &Subject) {
    let executor = &subject.executor;
    let target = subject.start(Program::Lasts).await;
    let id = target.container();
    let exec = subject.start_handling(id, "one", 5).await;
    if pause(subject, &target).await {
        assert_refused(executor.pause(id).await, Status::Paused);
        let refused = subject.exec(id, "two", Program::Lasts).await;
        assert_refused(refused, Status::Paused);
        let mut waiting = executor.wait(&exec);
        let sent = executor.kill(&exec, Signal::TERM, false);
        meanwhile(&mut waiting, sent).await.expect("kill");
        let early = tokio::time::timeout(MOMENT, waiting.as_mut()).await;
        assert!(early.is_err(), "a paused process goes on: {early:?}");
        assert_eq!(
            meanwhile(&mut waiting, subject.status(&target)).await,
            Status::Paused
        );
        executor.resume(id).await.expect("resume");
        let exit = waiting.await.expect("wait");
        assert_eq!(exit.status, ExitStatus::Exited { code: 5 });
        assert_eq!(subject.status(&target).await, Status::Running);
        subject.start_exec(id, "three", Program::Lasts).await;
    }
    subject.clean(&target).await;
}

pub(super) async fn paused_container_can_be_killed(subject: &Subject) {
    let target = subject.start(Program::Lasts).await;
    if pause(subject, &target).await {
        subject.kill(&target).await.expect("kill");
        let exit = subject.executor.wait(&target).await.expect("wait");
        assert_eq!(exit.status, KILLED);
        assert_eq!(subject.status(&target).await, Status::Stopped);
    }
    subject.clean(&target).await;
}

pub(super) async fn only_what_runs_is_paused_and_only_what_is_paused_resumed(subject: &Subject) {
    let executor = &subject.executor;
    for refused in [
        executor.pause(&unknown()).await,
        executor.resume(&unknown()).await,
    ] {
        let is_expected = is_unsupported(&refused) || matches!(refused, Err(Error::NotFound(_)));
        assert!(is_expected, "{refused:?}");
    }
    let target = Target::Init(subject.create(Program::Lasts).await);
    let id = target.container();
    let refuses = async |status| {
        let paused = executor.pause(id).await;
        if !is_unsupported(&paused) {
            assert_refused(paused, status);
        }
        let resumed = executor.resume(id).await;
        if !is_unsupported(&resumed) {
            assert_refused(resumed, status);
        }
        assert_eq!(subject.status(&target).await, status);
    };
    refuses(Status::Created).await;
    executor.start(&target).await.expect("start");
    let resumed = executor.resume(id).await;
    if !is_unsupported(&resumed) {
        assert_refused(resumed, Status::Running);
    }
    subject.kill(&target).await.expect("kill");
    executor.wait(&target).await.expect("wait");
    refuses(Status::Stopped).await;
    subject.clean(&target).await;
}

async fn stats(subject: &Subject, target: &Target) -> Stats {
    let stats = subject.executor.stats(target.container()).await;
    stats.expect("stats")
}

pub(super) async fn stats_count_processes_and_their_cpu_time_never_falls(subject: &Subject) {
    let missing = subject.executor.stats(&unknown()).await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    let target = subject.start(Program::Lasts).await;
    let alone = stats(subject, &target).await;
    assert!(alone.processes > 0, "no process is counted: {alone:?}");
    let exec = subject
        .start_exec(target.container(), "one", Program::Lasts)
        .await;
    let with = stats(subject, &target).await;
    assert!(with.processes > alone.processes, "{with:?} {alone:?}");
    subject.kill(&exec).await.expect("kill");
    subject.executor.wait(&exec).await.expect("wait");
    subject.executor.delete(&exec).await.expect("delete");
    let after = stats(subject, &target).await;
    assert_eq!(after.processes, alone.processes, "{after:?} {with:?}");
    for (before, now) in [(&alone, &with), (&with, &after)] {
        assert!(
            before.cpu_user_ns <= now.cpu_user_ns && before.cpu_system_ns <= now.cpu_system_ns,
            "CPU time falls: {before:?} {now:?}"
        );
    }
    subject.clean(&target).await;
}

/// The limit of processes, where the figures have it.
async fn limit(subject: &Subject, target: &Target) -> Option<u64> {
    let cgroups = stats(subject, target).await.cgroups?;
    cgroups.pids?.limit
}

pub(super) async fn update_changes_what_it_names_or_nothing(subject: &Subject) {
    let executor = &subject.executor;
    let mut resources = Resources::default();
    resources.pids.limit = Some(i64::try_from(LIMIT).expect("a small number"));
    let missing = executor.update(&unknown(), &resources).await;
    let is_expected = is_unsupported(&missing) || matches!(missing, Err(Error::NotFound(_)));
    assert!(is_expected, "{missing:?}");
    let target = subject.start(Program::Lasts).await;
    let id = target.container();
    let before = limit(subject, &target).await;
    match executor.update(id, &resources).await {
        Err(Error::Unsupported { .. } | Error::Setup { .. }) => {
            assert_eq!(limit(subject, &target).await, before);
        }
        updated => {
            updated.expect("update");
            let seen = limit(subject, &target).await;
            assert!(seen.is_none_or(|seen| seen == LIMIT), "{seen:?}");
            let nothing = executor.update(id, &Resources::default()).await;
            nothing.expect("change nothing");
            assert_eq!(limit(subject, &target).await, seen, "it was not named");
            resources.pids.limit = resources.pids.limit.map(|limit| limit * 2);
            resources.cpu.cpus = Some(MISSING_CPUS.to_owned());
            let refused = executor.update(id, &resources).await;
            assert!(refused.is_err(), "CPUs {MISSING_CPUS} were taken");
            if subject.updates_as_a_whole {
                assert_eq!(limit(subject, &target).await, seen, "it was refused");
            }
        }
    }
    assert_eq!(subject.status(&target).await, Status::Running);
    subject.kill(&target).await.expect("kill");
    executor.wait(&target).await.expect("wait");
    let late = executor.update(id, &Resources::default()).await;
    assert!(late.is_err(), "a stopped container was changed");
    subject.clean(&target).await;
}

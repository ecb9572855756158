//! Executors that break the contract, each in one way: the suite finds each of them, by the rule
//! that it breaks. One that leaves a terminal open is in `tests/executor`, as it needs processes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use reaper_exec::{
    ContainerState, CreateRequest, CreatedProcess, Error, ExecRequest, Executor, FakeExecutor,
    ProcessInfo, Signal, Stats, Target,
    conformance::{Program, RULES, Rule, Subject},
};
use reaper_spec::{
    ConsoleSize, ContainerId, ExecId, Exit, ExitStatus, ProcessIdentity, Resources, Status,
    Timestamp,
};

type Result<T> = std::result::Result<T, Error>;

/// In which way an executor is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Returns the exit of what was deleted from each later deletion too.
    ReportsExitTwice,
    /// Makes an exit anew for each wait.
    ReportsAnotherExit,
    /// Keeps an exit for one waiter.
    LosesExitForSecondWaiter,
    /// Deletes an exec without its exit.
    LosesExitOfExec,
    /// Forgets the execs of a container that has stopped.
    LosesExecsWithInit,
    /// Starts a container as soon as it is created.
    StartsOnCreate,
    /// Starts a process again.
    StartsTwice,
    /// Takes a missing program for one that has exited with 127.
    StartsMissingPrograms,
    /// Sends a signal to a pid that is another process's by now.
    SignalsReusedPid,
    /// Says that a signal to an exited process was sent.
    SignalsExitedProcesses,
    /// Signals the process that had an exec's id first.
    SignalsFirstExecOfAnId,
    /// Signals init alone.
    IgnoresAll,
    /// Signals all processes for one.
    AlwaysSignalsAll,
    /// Answers a wait at once.
    AnswersWaitAtOnce,
    /// Answers a wait once the process has started.
    AnswersWaitAtStart,
    /// Knows only the containers that it has created itself.
    ForgetsAfterRestart,
    /// Knows after a restart what runs, and not what has stopped.
    ForgetsExitsAfterRestart,
    /// Kills a process to delete it.
    DeletesRunningProcesses,
    /// Executes in what does not run.
    ExecsInAnyStatus,
    /// Ends the container with an exec.
    EndsInitWithExec,
    /// Calls what it does not know exited.
    CallsUnknownExited,
    /// Says that a container is paused, whose processes go on.
    FreezesNoProcess,
    /// Does not freeze, and says that it has.
    IgnoresPause,
    /// Does not thaw, and says that it has.
    IgnoresResume,
    /// Takes a second pause.
    PausesTwice,
    /// Adds processes to a paused container.
    ExecsWhilePaused,
    /// Keeps SIGKILL from what is paused.
    SparesPaused,
    /// Pauses what has not started.
    PausesBeforeStart,
    /// Says that it has resumed what is not paused.
    ResumesAnything,
    /// Has figures of what it does not know.
    MeasuresUnknown,
    /// Counts the init process alone.
    CountsInitAlone,
    /// Adds up the CPU time of the processes that there are.
    ForgetsCpuTimeOfExited,
    /// Changes no limit, and says that it has.
    IgnoresUpdate,
    /// Lifts the limits that an update does not name.
    LiftsOtherLimits,
    /// Changes the limits in front of the one that cannot be set.
    UpdatesHalf,
    /// Changes the limits of what it does not know, or has stopped.
    UpdatesAnything,
}

use Fault::*;

/// Each fault, and the rule that is to find it.
const FAULTS: &[(Fault, &str)] = &[
    (ReportsExitTwice, "exit_status_is_kept_until_delete"),
    (ReportsAnotherExit, "exit_status_is_kept_until_delete"),
    (
        LosesExitForSecondWaiter,
        "every_waiter_gets_the_exit_status",
    ),
    (LosesExitOfExec, "exec_id_is_taken_until_delete"),
    (LosesExecsWithInit, "execs_end_before_init"),
    (StartsOnCreate, "created_process_waits_for_start"),
    (StartsTwice, "a_second_start_is_refused"),
    (
        StartsMissingPrograms,
        "missing_program_is_reported_and_leaves_no_running_process",
    ),
    (
        SignalsReusedPid,
        "kill_of_exited_exec_reaches_no_other_process",
    ),
    (
        SignalsExitedProcesses,
        "kill_of_exited_or_unknown_process_is_refused",
    ),
    (
        SignalsFirstExecOfAnId,
        "exec_with_a_used_id_is_another_process",
    ),
    (IgnoresAll, "kill_of_all_reaches_execs_too"),
    (AlwaysSignalsAll, "kill_of_all_reaches_execs_too"),
    (AnswersWaitAtOnce, "wait_is_not_answered_before_the_exit"),
    (AnswersWaitAtStart, "wait_is_not_answered_before_the_exit"),
    (
        ForgetsAfterRestart,
        "a_new_executor_knows_containers_and_exits",
    ),
    (
        ForgetsExitsAfterRestart,
        "a_new_executor_knows_containers_and_exits",
    ),
    (
        DeletesRunningProcesses,
        "delete_of_running_process_is_refused",
    ),
    (ExecsInAnyStatus, "an_exec_needs_a_running_container"),
    (EndsInitWithExec, "killed_exec_leaves_container_running"),
    (
        CallsUnknownExited,
        "kill_of_exited_or_unknown_process_is_refused",
    ),
    (FreezesNoProcess, PAUSE),
    (IgnoresPause, PAUSE),
    (IgnoresResume, PAUSE),
    (PausesTwice, PAUSE),
    (ExecsWhilePaused, PAUSE),
    (SparesPaused, "paused_container_can_be_killed"),
    (PausesBeforeStart, PAUSED),
    (ResumesAnything, PAUSED),
    (MeasuresUnknown, STATS),
    (CountsInitAlone, STATS),
    (ForgetsCpuTimeOfExited, STATS),
    (IgnoresUpdate, UPDATE),
    (LiftsOtherLimits, UPDATE),
    (UpdatesHalf, UPDATE),
    (UpdatesAnything, UPDATE),
];

const PAUSE: &str = "paused_container_runs_nothing_until_it_is_resumed";
const PAUSED: &str = "only_what_runs_is_paused_and_only_what_is_paused_resumed";
const STATS: &str = "stats_count_processes_and_their_cpu_time_never_falls";
const UPDATE: &str = "update_changes_what_it_names_or_nothing";

/// An executor that is right but for its fault.
struct Mutant {
    inner: FakeExecutor,
    fault: Option<Fault>,
    /// It was made after the containers.
    reopened: bool,
    exits: Mutex<HashMap<Target, Exit>>,
}

impl Mutant {
    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn exit_of(&self, target: &Target) -> Option<Exit> {
        let exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        exits.get(target).cloned()
    }

    fn keep(&self, target: &Target, exit: &Exit) {
        let mut exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        exits.insert(target.clone(), exit.clone());
    }

    async fn is_paused(&self, id: &ContainerId) -> Result<bool> {
        Ok(self.inner.state(id).await?.status == Status::Paused)
    }

    /// Does `act` in a container that is resumed for it, if it is paused.
    async fn thawed<T>(
        &self,
        id: &ContainerId,
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let is_paused = self.is_paused(id).await?;
        if is_paused {
            self.inner.resume(id).await?;
        }
        let done = act.await;
        if is_paused {
            self.inner.pause(id).await?;
        }
        done
    }

    /// Fails where a fault has forgotten the container.
    async fn know(&self, target: &Target) -> Result<()> {
        let unknown = Err(Error::NotFound(target.clone()));
        if self.reopened && self.is(ForgetsAfterRestart) {
            return unknown;
        }
        if self.reopened && self.is(ForgetsExitsAfterRestart) {
            let seen = self.inner.state(target.container()).await?;
            if seen.status == Status::Stopped {
                return unknown;
            }
        }
        Ok(())
    }
}

fn init_of(target: &Target) -> Target {
    Target::Init(target.container().clone())
}

fn exited() -> Exit {
    Exit::new(ExitStatus::Exited { code: 0 }, Timestamp::now())
}

#[async_trait]
impl Executor for Mutant {
    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess> {
        let target = Target::Init(request.container.id.clone());
        let created = self.inner.create(request).await?;
        if self.is(StartsOnCreate) {
            self.inner.start(&target).await?;
        }
        Ok(created)
    }

    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        request: ExecRequest,
    ) -> Result<CreatedProcess> {
        if self.is(ExecsWhilePaused) {
            return self.thawed(id, self.inner.exec(id, exec, request)).await;
        }
        match self.inner.exec(id, exec, request).await {
            Err(Error::Status { .. }) if self.is(ExecsInAnyStatus) => Ok(CreatedProcess::new(None)),
            answer => answer,
        }
    }

    async fn start(&self, target: &Target) -> Result<ProcessIdentity> {
        let started = self.inner.start(target).await;
        let is_hidden = match &started {
            Err(Error::Status { .. }) => self.is(StartsTwice),
            Err(Error::Execve { .. }) => self.is(StartsMissingPrograms),
            _ => false,
        };
        if is_hidden {
            return Ok(ProcessIdentity {
                pid: 1,
                start_time: 1,
                boot_id: "fake".to_owned(),
            });
        }
        started
    }

    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()> {
        self.know(target).await?;
        if self.is(SignalsFirstExecOfAnId) && self.exit_of(target).is_some() {
            return Ok(());
        }
        if self.is(SparesPaused) && self.is_paused(target.container()).await? {
            return Ok(());
        }
        if self.is(FreezesNoProcess) {
            let sent = self.inner.kill(target, signal, all);
            return self.thawed(target.container(), sent).await;
        }
        let all = (all || self.is(AlwaysSignalsAll)) && !self.is(IgnoresAll);
        let answer = self.inner.kill(target, signal, all).await;
        match &answer {
            Err(Error::Ended(ended)) if self.is(SignalsReusedPid) => {
                // Of an ended container there is no other process.
                let _ = self.inner.kill(&init_of(ended), signal, false).await;
            }
            Err(Error::Ended(_)) if self.is(SignalsExitedProcesses) => return Ok(()),
            Err(Error::NotFound(_)) if self.is(CallsUnknownExited) => {
                return Err(Error::Ended(target.clone()));
            }
            Ok(()) if self.is(EndsInitWithExec) => {
                self.inner.exit(&init_of(target), 0);
            }
            _ => {}
        }
        answer
    }

    async fn wait(&self, target: &Target) -> Result<Exit> {
        self.know(target).await?;
        if self.is(AnswersWaitAtOnce) {
            return Ok(exited());
        }
        if self.is(AnswersWaitAtStart) && target.exec_id().is_none() {
            loop {
                let seen = self.inner.state(target.container()).await?;
                if seen.status != Status::Created {
                    return Ok(seen.exit.unwrap_or_else(exited));
                }
                tokio::task::yield_now().await;
            }
        }
        let exit = self.inner.wait(target).await?;
        if self.is(LosesExitForSecondWaiter) && self.exit_of(target).is_some() {
            return Err(Error::NotFound(target.clone()));
        }
        self.keep(target, &exit);
        if self.is(ReportsAnotherExit) {
            return Ok(Exit::new(exit.status, Timestamp::now()));
        }
        Ok(exit)
    }

    async fn resize_pty(&self, target: &Target, size: ConsoleSize) -> Result<()> {
        self.inner.resize_pty(target, size).await
    }

    async fn close_stdin(&self, target: &Target) -> Result<()> {
        self.inner.close_stdin(target).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        if self.is(IgnoresPause) {
            return Ok(());
        }
        match self.inner.pause(id).await {
            Err(Error::Status {
                status: Status::Paused,
                ..
            }) if self.is(PausesTwice) => Ok(()),
            Err(Error::Status {
                status: Status::Created,
                ..
            }) if self.is(PausesBeforeStart) => Ok(()),
            answer => answer,
        }
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        if self.is(IgnoresResume) {
            return Ok(());
        }
        match self.inner.resume(id).await {
            Err(Error::Status { .. }) if self.is(ResumesAnything) => Ok(()),
            answer => answer,
        }
    }

    async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        if self.is(IgnoresUpdate) {
            return Ok(());
        }
        if self.is(LiftsOtherLimits) && resources.pids.limit.is_none() {
            let mut lifted = resources.clone();
            lifted.pids.limit = Some(-1);
            return self.inner.update(id, &lifted).await;
        }
        if self.is(UpdatesHalf) {
            let mut first = Resources::default();
            first.pids.limit = resources.pids.limit;
            self.inner.update(id, &first).await?;
        }
        match self.inner.update(id, resources).await {
            Err(Error::NotFound(_) | Error::Status { .. }) if self.is(UpdatesAnything) => Ok(()),
            answer => answer,
        }
    }

    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>> {
        self.inner.pids(id).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let mut stats = match self.inner.stats(id).await {
            Err(Error::NotFound(_)) if self.is(MeasuresUnknown) => Stats::default(),
            answer => answer?,
        };
        if self.is(ForgetsCpuTimeOfExited) {
            stats.cpu_user_ns = stats.processes * 1000;
        }
        if self.is(CountsInitAlone) {
            stats.processes = 1;
        }
        Ok(stats)
    }

    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        self.know(&Target::Init(id.clone())).await?;
        self.inner.state(id).await
    }

    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        if target.exec_id().is_some() && self.is(LosesExecsWithInit) {
            let seen = self.inner.state(target.container()).await?;
            if seen.status == Status::Stopped {
                return Ok(None);
            }
        }
        if self.is(DeletesRunningProcesses) {
            // What has ended, or does not exist, is deleted as ever.
            let _ = self.inner.kill(target, Signal::KILL, true).await;
        }
        let exit = self.inner.delete(target).await?;
        if self.is(LosesExitOfExec) && target.exec_id().is_some() {
            return Ok(None);
        }
        if self.is(ReportsExitTwice) {
            return Ok(exit.or_else(|| self.exit_of(target)));
        }
        Ok(exit)
    }
}

fn subject(fault: Option<Fault>) -> Subject {
    let fake = FakeExecutor::new();
    let root = tempfile::tempdir().unwrap();
    let open = move |reopened| Mutant {
        inner: fake.clone(),
        fault,
        reopened,
        exits: Mutex::default(),
    };
    Subject::new(open(false), root.path())
        .running(|program| match program {
            Program::Ends(code) => vec!["exit".to_owned(), code.to_string()],
            Program::Lasts => vec!["last".to_owned()],
            Program::Missing => vec!["missing".to_owned()],
            Program::IgnoresTerm => vec!["ignore".to_owned(), "15".to_owned()],
            Program::EndsByTerm(code) => {
                vec!["handle".to_owned(), "15".to_owned(), code.to_string()]
            }
        })
        .without_processes()
        .reopening(move || open(true))
        .keeping(root)
}

/// What the check of `rule` panics with, if it does.
async fn complaint(rule: Rule, subject: Subject) -> Option<String> {
    let set = tokio::task::LocalSet::new();
    let checked = set.run_until(async move {
        let checking = tokio::task::spawn_local(async move { rule.check(&subject).await });
        checking.await
    });
    let cause = checked.await.err()?.into_panic();
    Some(*cause.downcast::<String>().expect("a message"))
}

#[tokio::test]
async fn executor_without_fault_keeps_every_rule() {
    for rule in RULES {
        rule.check(&subject(None)).await;
    }
}

#[tokio::test]
async fn each_faulty_executor_is_found_by_the_rule_that_it_breaks() {
    for &(fault, name) in FAULTS {
        let rule = RULES.iter().find(|rule| rule.name == name);
        let rule = rule.unwrap_or_else(|| panic!("no rule {name}"));
        // Only the faults that lose an answer take so long, and they take it all.
        let subject = subject(Some(fault)).within(Duration::from_secs(2));
        let said = complaint(*rule, subject).await;
        let said = said.unwrap_or_else(|| panic!("{name} does not find one that {fault:?}"));
        assert!(
            said.starts_with(&format!("the rule {name} is broken: ")),
            "{said}"
        );
    }
}

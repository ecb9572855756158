//! Random lives of a container and its execs, step by step against a model.
//!
//! Every program waits at a gate of the test's, its input, and so nothing ends by itself: what a
//! step must come to is known, whatever the machine's speed. Where two things happen at once the
//! model knows both outcomes.

use std::{
    collections::BTreeMap,
    io::{PipeWriter, Write as _},
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reaper_exec::{
    Error, ExecRequest, Executor as _, Signal, Target,
    engine::Error as EngineError,
    io::{StdioFds, StdioRequest, StreamTarget, Streams},
};
use reaper_spec::{ContainerId, ExecId, Exit, ExitStatus, Status};
use reaper_state::Error as StoreError;

use crate::{
    crashes::kill_process,
    rig::{Rig, block_on},
};

/// Each is some fifty calls of real monitors.
const LIVES: u32 = 12;
const STEPS: usize = 14;
const EXECS: u8 = 2;

const KILLED: ExitStatus = ExitStatus::Signaled {
    signal: 9,
    core: false,
};

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Start,
    Exec(u8),
    StartExec(u8),
    /// A process ends by itself: the exec of this number, or init.
    Exit(Option<u8>, u8),
    Kill(Option<u8>),
    /// It ends by itself, and is killed meanwhile.
    ExitAndKill(u8),
    /// Its gate is opened, and it is killed meanwhile.
    StartAndKill,
    DeleteExec(u8),
    Delete,
    /// The embedding program dies, and another comes.
    Restart,
    /// The monitor is killed.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let exec = 0..EXECS;
    prop_oneof![
        3 => Just(Step::Create),
        3 => Just(Step::Start),
        3 => exec.clone().prop_map(Step::Exec),
        3 => exec.clone().prop_map(Step::StartExec),
        2 => (prop::option::weighted(0.7, exec.clone()), any::<u8>())
            .prop_map(|(exec, code)| Step::Exit(exec, code)),
        2 => prop::option::weighted(0.7, exec.clone()).prop_map(Step::Kill),
        1 => any::<u8>().prop_map(Step::ExitAndKill),
        1 => Just(Step::StartAndKill),
        2 => exec.prop_map(Step::DeleteExec),
        1 => Just(Step::Delete),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

pub(crate) fn check() {
    let config = Config {
        cases: LIVES,
        failure_persistence: None,
        max_shrink_iters: 20,
        ..Config::default()
    };
    let checked = TestRunner::new(config).run(&vec(step(), 1..STEPS), |steps| {
        block_on(|rig| {
            Box::pin(async move {
                let mut life = Life::new(rig);
                for step in steps {
                    life.take(step).await;
                    life.compare(step).await;
                }
                life.end().await
            })
        });
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

/// What the model knows of a process.
#[derive(Debug)]
struct Process {
    status: Status,
    /// A line into it is the code that it ends with.
    gate: PipeWriter,
    exit: Option<Exit>,
}

struct Life {
    rig: Rig,
    id: ContainerId,
    init: Option<Process>,
    execs: BTreeMap<u8, Process>,
}

impl Life {
    fn new(rig: Rig) -> Self {
        Self {
            rig,
            id: ContainerId::new("life").unwrap(),
            init: None,
            execs: BTreeMap::new(),
        }
    }

    fn status(&self) -> Option<Status> {
        self.init.as_ref().map(|init| init.status)
    }

    fn target(&self, exec: Option<u8>) -> Target {
        match exec {
            None => Target::Init(self.id.clone()),
            Some(exec) => Target::Exec(self.id.clone(), name(exec)),
        }
    }

    fn process(&mut self, exec: Option<u8>) -> Option<&mut Process> {
        match exec {
            None => self.init.as_mut(),
            Some(exec) => self.execs.get_mut(&exec),
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Create => self.create().await,
            Step::Start => self.start(None).await,
            Step::Exec(exec) => self.exec(exec).await,
            Step::StartExec(exec) => self.start(Some(exec)).await,
            Step::Exit(exec, code) => {
                if self.is_running(exec) {
                    self.open_gate(exec, code);
                    self.has_ended(exec, &[ExitStatus::Exited { code }]).await;
                }
            }
            Step::Kill(exec) => self.kill(exec).await,
            Step::ExitAndKill(code) => {
                if self.is_running(None) {
                    self.open_gate(None, code);
                    self.race_kill().await;
                    self.has_ended(None, &[ExitStatus::Exited { code }, KILLED])
                        .await;
                }
            }
            Step::StartAndKill => {
                if self.status() == Some(Status::Created) {
                    let (engine, id) = (&self.rig.engine, &self.id);
                    let (started, ()) = tokio::join!(engine.start(id), self.race_kill());
                    if let Err(error) = started {
                        assert!(is_refusal(&error), "{error:?}");
                    }
                    self.has_ended(None, &[KILLED]).await;
                }
            }
            Step::DeleteExec(exec) => self.delete_exec(exec).await,
            Step::Delete => self.delete().await,
            Step::Restart => {
                // One at its gate is given up with its maker, sooner or later.
                let gated = |process: &Process| process.status == Status::Created;
                if !self.execs.values().any(gated) {
                    self.rig.engine = self.rig.another();
                }
            }
            Step::Crash => self.crash().await,
        }
    }

    async fn create(&mut self) {
        let (stdio, gate) = gated();
        let new = self
            .rig
            .container("life", self.rig.process(&program()), stdio);
        let created = self.rig.engine.create(new).await;
        if self.init.is_some() {
            let taken = matches!(
                created,
                Err(EngineError::Store(StoreError::AlreadyExists { .. }))
            );
            assert!(taken, "{created:?}");
            return;
        }
        assert_eq!(created.unwrap().0.status, Status::Created);
        self.init = Some(Process {
            status: Status::Created,
            gate,
            exit: None,
        });
    }

    async fn exec(&mut self, exec: u8) {
        let (stdio, gate) = gated();
        let request = ExecRequest::new(self.rig.process(&program())).with_stdio(stdio);
        let executor = self.rig.engine.executor();
        let added = executor.exec(&self.id, &name(exec), request).await;
        match (self.status(), self.execs.contains_key(&exec)) {
            (None, _) => assert!(matches!(added, Err(Error::NotFound(_))), "{added:?}"),
            (Some(Status::Running), false) => {
                added.unwrap();
                let status = Status::Created;
                let exit = None;
                self.execs.insert(exec, Process { status, gate, exit });
            }
            (Some(Status::Running), true) => {
                assert!(matches!(added, Err(Error::AlreadyExists(_))), "{added:?}");
            }
            (Some(known), _) => {
                let refused =
                    matches!(&added, Err(Error::Status { status, .. }) if *status == known);
                assert!(refused, "{known}: {added:?}");
            }
        }
    }

    async fn start(&mut self, exec: Option<u8>) {
        let target = self.target(exec);
        let started = match exec {
            None => self.rig.engine.start(&self.id).await.map(drop),
            Some(_) => {
                let started = self.rig.engine.executor().start(&target).await;
                started.map(drop).map_err(EngineError::Executor)
            }
        };
        match self.process(exec) {
            Some(process) if process.status == Status::Created => {
                started.unwrap();
                process.status = Status::Running;
            }
            _ => assert!(is_refusal(&started.unwrap_err())),
        }
    }

    fn is_running(&mut self, exec: Option<u8>) -> bool {
        let process = self.process(exec);
        process.is_some_and(|process| process.status == Status::Running)
    }

    fn open_gate(&mut self, exec: Option<u8>, code: u8) {
        let process = self.process(exec).unwrap();
        writeln!(process.gate, "{code}").unwrap();
    }

    async fn kill(&mut self, exec: Option<u8>) {
        let target = self.target(exec);
        let executor = self.rig.engine.executor();
        let killed = executor.kill(&target, Signal::KILL, false).await;
        match self.process(exec).map(|process| process.status) {
            None => {
                let ended = matches!(killed, Err(Error::Ended(_))) && self.is_over();
                let unknown = matches!(killed, Err(Error::NotFound(_)));
                assert!(ended || unknown, "{killed:?}");
            }
            Some(Status::Stopped) => {
                assert!(matches!(killed, Err(Error::Ended(_))), "{killed:?}");
            }
            Some(_) => {
                killed.unwrap();
                self.has_ended(exec, &[KILLED]).await;
            }
        }
    }

    /// A kill of what is ending.
    async fn race_kill(&self) {
        let target = self.target(None);
        let executor = self.rig.engine.executor();
        match executor.kill(&target, Signal::KILL, false).await {
            Ok(()) | Err(Error::Ended(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    /// A process ends now, in one of these ways; with init everything does, and before it.
    async fn has_ended(&mut self, exec: Option<u8>, possible: &[ExitStatus]) {
        let target = self.target(exec);
        let exit = match exec {
            None => self.rig.engine.wait(&self.id).await.unwrap(),
            Some(_) => self.rig.engine.executor().wait(&target).await.unwrap(),
        };
        assert!(
            possible.contains(&exit.status),
            "{exit:?}, not {possible:?}"
        );
        let process = self.process(exec).unwrap();
        process.status = Status::Stopped;
        process.exit = Some(exit.clone());
        if exec.is_none() {
            self.execs_have_ended(&exit).await;
        }
    }

    /// With init everything has ended. Its monitor may leave from now on, and takes along what only
    /// it knew of execs: so they are no longer modelled.
    async fn execs_have_ended(&mut self, init: &Exit) {
        for (exec, process) in std::mem::take(&mut self.execs) {
            if let Some(end) = process.exit {
                assert!(end.at <= init.at, "exec {exec} ended after init: {end:?}");
                continue;
            }
            let target = self.target(Some(exec));
            match self.rig.engine.executor().wait(&target).await {
                Ok(end) => {
                    let lost = matches!(end.status, ExitStatus::Unknown { .. });
                    assert!(lost || end.status == KILLED, "exec {exec}: {end:?}");
                }
                Err(error) => assert!(matches!(error, Error::NotFound(_)), "{error:?}"),
            }
        }
    }

    /// Whether what is said of an exec depends on the monitor being there still.
    fn is_over(&self) -> bool {
        self.status() == Some(Status::Stopped)
    }

    async fn delete_exec(&mut self, exec: u8) {
        let deleted = self
            .rig
            .engine
            .executor()
            .delete(&self.target(Some(exec)))
            .await;
        match self.execs.get(&exec).map(|process| process.status) {
            None if self.is_over() => assert!(deleted.is_ok(), "{deleted:?}"),
            None => assert!(matches!(deleted, Ok(None)), "{deleted:?}"),
            Some(Status::Stopped) => {
                let known = self.execs.remove(&exec).unwrap();
                assert_eq!(deleted.unwrap(), known.exit);
            }
            Some(_) => assert!(matches!(deleted, Err(Error::Status { .. })), "{deleted:?}"),
        }
    }

    async fn delete(&mut self) {
        let deleted = self.rig.engine.delete(&self.id, false).await;
        match self.status() {
            None => assert!(is_unknown(&deleted.unwrap_err())),
            Some(Status::Stopped) => {
                let known = self.init.take().unwrap();
                assert_eq!(deleted.unwrap(), known.exit);
                self.execs.clear();
            }
            Some(_) => {
                let refused = matches!(deleted, Err(EngineError::NotStopped { .. }));
                assert!(refused, "{deleted:?}");
            }
        }
    }

    async fn crash(&mut self) {
        if !matches!(self.status(), Some(Status::Created | Status::Running)) {
            return;
        }
        let record = self.rig.engine.state(&self.id).await.unwrap();
        kill_process(&record.monitor.unwrap());
        let exit = self.rig.engine.wait(&self.id).await.unwrap();
        assert!(
            matches!(exit.status, ExitStatus::Unknown { .. }),
            "{exit:?}"
        );
        assert_eq!(exit.status.code(), 137);
        assert!(
            !self.rig.marked_process_exists(),
            "its monitor's end is its own"
        );
        let init = self.init.as_mut().unwrap();
        init.status = Status::Stopped;
        init.exit = Some(exit);
        // Nobody knows of them any more.
        self.execs.clear();
    }

    /// What everybody sees is what the model knows, also another program.
    async fn compare(&mut self, step: Step) {
        let another = self.rig.another();
        let exit = self.init.as_ref().and_then(|init| init.exit.clone());
        for engine in [&self.rig.engine, &another] {
            let Some(status) = self.status() else {
                let unknown = engine.state(&self.id).await.unwrap_err();
                assert!(is_unknown(&unknown), "{step:?}: {unknown:?}");
                assert_eq!(engine.list().await.unwrap(), [], "{step:?}");
                continue;
            };
            let record = engine.state(&self.id).await.unwrap();
            assert_eq!((record.status, &record.exit), (status, &exit), "{step:?}");
            let times = [Some(record.created), record.started];
            let last = record.exit.map(|exit| exit.at);
            let order: Vec<_> = times.into_iter().chain([last]).flatten().collect();
            assert!(order.is_sorted(), "{step:?}: {order:?}");
        }
    }

    async fn end(self) -> Rig {
        if self.init.is_some() {
            self.rig.engine.delete(&self.id, true).await.unwrap();
        }
        self.rig
    }
}

fn name(exec: u8) -> ExecId {
    ExecId::new(format!("exec-{exec}")).unwrap()
}

/// Ends with the code that it reads.
fn program() -> [&'static str; 3] {
    ["/bin/sh", "-c", "read code && exit $code; exec sleep 1000"]
}

/// Streams of which the input is the gate.
fn gated() -> (StdioRequest, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let stdio = StdioRequest::new(Streams::default().with_stdin(StreamTarget::Inherit))
        .with_attachments(StdioFds::new().with_inherited([Some(reader.into()), None, None]));
    (stdio, writer)
}

/// Whether something was refused because there is no such process, or because of its status.
fn is_refusal(error: &EngineError) -> bool {
    let of_executor = |error: &Error| {
        matches!(
            error,
            Error::NotFound(_) | Error::Ended(_) | Error::Status { .. } | Error::Execve { .. }
        )
    };
    match error {
        EngineError::Transition { .. } => true,
        EngineError::Executor(error) => of_executor(error),
        error => is_unknown(error),
    }
}

fn is_unknown(error: &EngineError) -> bool {
    matches!(error, EngineError::Store(StoreError::NotFound { .. }))
}

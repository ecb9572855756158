//! The contract of [`Executor`] as a suite that any executor can be run against.
//!
//! ```
//! # #[cfg(feature = "fake")] {
//! use reaper_exec::{FakeExecutor, conformance::{self, Program, Subject}};
//!
//! let subject = || {
//!     Subject::new(FakeExecutor::new(), std::env::temp_dir()).running(|program| match program {
//!         Program::Ends(code) => vec!["exit".into(), code.to_string()],
//!         Program::Lasts => vec!["last".into()],
//!         Program::Missing => vec!["missing".into()],
//!         Program::IgnoresTerm => vec!["ignore".into(), "15".into()],
//!         Program::EndsByTerm(code) => vec!["handle".into(), "15".into(), code.to_string()],
//!     })
//!     .without_processes()
//! };
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! runtime.block_on(conformance::run(subject));
//! # }
//! ```
//!
//! The rules speak about what callers see. That an end survives its monitor, and that nothing is
//! left of a container, needs processes to kill: the crate's own `tests/executor` shows how.
//!
//! Some rules need more than every subject has, and check nothing on one that has it not:
//!
//! | rule | needs |
//! |---|---|
//! | `a_new_executor_knows_containers_and_exits` | [`Subject::reopening`] |
//! | `deleted_exec_leaves_no_stream_open` | processes of the kernel, see [`Subject::without_processes`] |
//! | of pausing | an executor that can freeze containers: one that cannot says [`Error::Unsupported`] |
//! | of limits | one that can set a limit of processes; that the limit holds is looked for in [`Stats::cgroups`](crate::Stats::cgroups) |
//!
//! A rule that takes longer than a minute is broken: an answer does not come. [`Subject::within`] sets
//! another limit.

mod control;
mod output;
mod rules;

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use reaper_overlay::ViewRequest;
use reaper_spec::{ContainerId, ExecId, ProcessSpec, Status, conformance::broken};
use reaper_state::StateRoot;

use self::output::OutputReader;
use crate::{
    executor::{ContainerConfig, CreateRequest, Error, ExecRequest, Executor, Target},
    io::StdioRequest,
    signal::Signal,
};

/// How long the check of a rule may take; only an executor that breaks it takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// What a process of the suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// It ends at once with this code.
    Ends(u8),
    /// It lasts until a signal ends it.
    Lasts,
    /// It does not exist.
    Missing,
    /// It ignores SIGTERM, and lasts until another signal ends it. It writes a line to its standard
    /// output once it ignores the signal; one [without processes](Subject::without_processes)
    /// ignores it from the start on.
    IgnoresTerm,
    /// It exits with this code when it gets SIGTERM, and lasts until a signal ends it. It writes a
    /// line as [`IgnoresTerm`](Self::IgnoresTerm) does, once it handles the signal.
    EndsByTerm(u8),
}

type Reopen = Box<dyn Fn() -> Arc<dyn Executor>>;

/// An executor without containers, to be checked.
pub struct Subject {
    executor: Arc<dyn Executor>,
    reopen: Option<Reopen>,
    processes: bool,
    updates_as_a_whole: bool,
    limit: Duration,
    root: StateRoot,
    args: fn(Program) -> Vec<String>,
    bundle: Box<dyn Fn(&ProcessSpec) -> PathBuf>,
    // Dropped last: a temporary folder, say.
    _kept: Option<Box<dyn Any>>,
}

impl Subject {
    /// An executor whose containers have their folders below `root`. The programs are the host's
    /// shell and `sleep`.
    pub fn new(executor: impl Executor + 'static, root: impl Into<PathBuf>) -> Self {
        let root = StateRoot::new(root);
        let bundle = root.path().to_owned();
        Self {
            executor: Arc::new(executor),
            reopen: None,
            processes: true,
            updates_as_a_whole: true,
            limit: LIMIT,
            root,
            bundle: Box::new(move |_| bundle.clone()),
            args: |program| match program {
                Program::Ends(code) => shell(format!("exit {code}")),
                Program::Lasts => vec!["/bin/sleep".to_owned(), "1000000".to_owned()],
                Program::Missing => vec!["/nowhere/missing".to_owned()],
                Program::IgnoresTerm => {
                    shell("trap '' TERM; echo ignored; exec sleep 1000000".to_owned())
                }
                Program::EndsByTerm(code) => shell(format!(
                    "trap 'exit {code}' TERM; echo handled; sleep 1000000 & wait"
                )),
            },
            _kept: None,
        }
    }

    /// Runs other programs.
    #[must_use]
    pub fn running(mut self, args: fn(Program) -> Vec<String>) -> Self {
        self.args = args;
        self
    }

    /// The executor's processes are not the kernel's, as those of a fake are: the rules about what a
    /// process leaves in the kernel and about its streams are left out.
    #[must_use]
    pub fn without_processes(mut self) -> Self {
        self.processes = false;
        self
    }

    /// An update that is refused may have changed something, as with an OCI runtime that takes one limit after
    /// another: that it has not is not checked.
    #[must_use]
    pub fn updating_in_parts(mut self) -> Self {
        self.updates_as_a_whole = false;
        self
    }

    /// `open` makes another executor of the same containers, as a program has that was started again.
    /// Without it, the rule that containers outlive their executor checks nothing.
    #[must_use]
    pub fn reopening<E: Executor + 'static>(mut self, open: impl Fn() -> E + 'static) -> Self {
        self.reopen = Some(Box::new(move || Arc::new(open())));
        self
    }

    /// Sets how long the check of a rule may take; a minute by default.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Makes the bundle of each container by `bundle`, which gets the init process and returns
    /// the bundle's path: for executors that read it. Without, the bundle is an empty folder.
    #[must_use]
    pub fn in_bundles(mut self, bundle: impl Fn(&ProcessSpec) -> PathBuf + 'static) -> Self {
        self.bundle = Box::new(bundle);
        self
    }

    /// Keeps `value`, what the containers are in, until the check is over.
    #[must_use]
    pub fn keeping(mut self, value: impl Any) -> Self {
        self._kept = Some(Box::new(value));
        self
    }

    fn process(&self, program: Program) -> ProcessSpec {
        let process = ProcessSpec::new((self.args)(program), "/");
        let mut process = process.expect("a program that can be run");
        process.env = vec!["PATH=/usr/bin:/bin".to_owned()];
        process
    }

    /// A container that waits for its start.
    async fn create(&self, program: Program) -> ContainerId {
        self.try_create(program).await.expect("create")
    }

    async fn try_create(&self, program: Program) -> Result<ContainerId, Error> {
        self.create_with(program, StdioRequest::default()).await
    }

    async fn create_with(
        &self,
        program: Program,
        stdio: StdioRequest,
    ) -> Result<ContainerId, Error> {
        let id: ContainerId = "conformance".parse().expect("an id");
        let dir = self.root.container(&id);
        std::fs::create_dir_all(dir.path()).expect("the folder of the container");
        let process = self.process(program);
        let request = CreateRequest {
            dir,
            container: ContainerConfig {
                bundle: (self.bundle)(&process),
                view: ViewRequest::new(id.clone(), PathBuf::from("/")),
                stdio,
                ..ContainerConfig::new(id.clone(), process)
            },
        };
        self.executor.create(request).await?;
        Ok(id)
    }

    async fn start(&self, program: Program) -> Target {
        let target = Target::Init(self.create(program).await);
        self.executor.start(&target).await.expect("start");
        target
    }

    /// A container that ignores SIGTERM by now.
    async fn start_ignoring(&self) -> Target {
        let program = Program::IgnoresTerm;
        if !self.processes {
            return self.start(program).await;
        }
        let (stdio, mut output) = OutputReader::below(self.root.path());
        let created = self.create_with(program, stdio).await;
        let target = Target::Init(created.expect("create"));
        self.executor.start(&target).await.expect("start");
        output.something().await;
        target
    }

    async fn exec(&self, id: &ContainerId, name: &str, program: Program) -> Result<Target, Error> {
        let process = self.process(program);
        let stdio = StdioRequest::default();
        self.exec_with(id, name, process, stdio).await
    }

    async fn exec_with(
        &self,
        id: &ContainerId,
        name: &str,
        process: ProcessSpec,
        stdio: StdioRequest,
    ) -> Result<Target, Error> {
        let exec: ExecId = name.parse().expect("an exec id");
        let request = ExecRequest {
            process,
            process_json: None,
            stdio,
            preserve_fds: Vec::new(),
            kill_on_disconnect: false,
        };
        self.executor.exec(id, &exec, request).await?;
        Ok(Target::Exec(id.clone(), exec))
    }

    async fn start_exec(&self, id: &ContainerId, name: &str, program: Program) -> Target {
        let exec = self.exec(id, name, program).await.expect("exec");
        self.executor.start(&exec).await.expect("start the exec");
        exec
    }

    /// An exec that ends by SIGTERM from now on.
    async fn start_handling(&self, id: &ContainerId, name: &str, code: u8) -> Target {
        let program = Program::EndsByTerm(code);
        if !self.processes {
            return self.start_exec(id, name, program).await;
        }
        let (stdio, mut output) = OutputReader::below(self.root.path());
        let made = self.exec_with(id, name, self.process(program), stdio).await;
        let exec = made.expect("exec");
        self.executor.start(&exec).await.expect("start the exec");
        output.something().await;
        exec
    }

    async fn kill(&self, target: &Target) -> Result<(), Error> {
        self.executor.kill(target, Signal::KILL, false).await
    }

    async fn status(&self, target: &Target) -> Status {
        let seen = self.executor.state(target.container()).await;
        seen.expect("observe").status
    }

    async fn clean(&self, target: &Target) {
        match self.executor.kill(target, Signal::KILL, true).await {
            Ok(()) | Err(Error::Ended(_)) => {}
            Err(error) => panic!("kill: {error}"),
        }
        self.executor.wait(target).await.expect("wait");
        self.executor.delete(target).await.expect("delete");
    }
}

fn shell(script: String) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), script]
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

type Checking<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One rule of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The rule in words, joined by underscores.
    pub name: &'static str,
    check: for<'a> fn(&'a Subject) -> Checking<'a>,
}

impl Rule {
    /// Checks the rule on an executor without containers.
    ///
    /// # Panics
    /// The executor breaks the rule; the message says which it is and how.
    pub async fn check(&self, subject: &Subject) {
        let limited = tokio::time::timeout(subject.limit, (self.check)(subject));
        let mut checking = std::pin::pin!(limited);
        let checked = poll_fn(|context| {
            // A check that panicked is not polled again.
            match catch_unwind(AssertUnwindSafe(|| checking.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(within)) => Poll::Ready(Ok(within)),
                Err(cause) => Poll::Ready(Err(cause)),
            }
        });
        match checked.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => broken(self.name, &format!("no answer within {:?}", subject.limit)),
            Err(cause) => broken(self.name, &*cause),
        }
    }
}

/// Checks every rule, each on a separate executor, made by `subject`.
///
/// # Panics
/// The executor breaks a rule; the message says which and how.
pub async fn run(subject: impl Fn() -> Subject) {
    for rule in RULES {
        rule.check(&subject()).await;
    }
}

macro_rules! rules {
    ($($module:ident::$rule:ident)*) => {
        /// The rules, in the order of the contract.
        pub const RULES: &[Rule] = &[$(Rule {
            name: stringify!($rule),
            check: |subject| Box::pin($module::$rule(subject)),
        }),*];
    };
}

rules! {
    rules::created_process_waits_for_start
    rules::wait_is_not_answered_before_the_exit
    rules::exit_status_is_kept_until_delete
    rules::every_waiter_gets_the_exit_status
    rules::missing_program_is_reported_and_leaves_no_running_process
    rules::a_second_start_is_refused
    rules::kill_ends_created_process_before_start
    rules::kill_of_exited_or_unknown_process_is_refused
    rules::kill_of_exited_exec_reaches_no_other_process
    rules::kill_of_all_reaches_execs_too
    rules::delete_of_running_process_is_refused
    rules::an_exec_needs_a_running_container
    rules::exec_id_is_taken_until_delete
    rules::exec_with_a_used_id_is_another_process
    rules::killed_exec_leaves_container_running
    rules::deleted_exec_leaves_no_stream_open
    rules::execs_end_before_init
    control::paused_container_runs_nothing_until_it_is_resumed
    control::paused_container_can_be_killed
    control::only_what_runs_is_paused_and_only_what_is_paused_resumed
    control::stats_count_processes_and_their_cpu_time_never_falls
    control::update_changes_what_it_names_or_nothing
    rules::a_new_executor_knows_containers_and_exits
}

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
//!     })
//! };
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! runtime.block_on(conformance::run(subject));
//! # }
//! ```
//!
//! The rules speak about what callers see. That an end survives its monitor, and that nothing is
//! left of a container, needs processes to kill: the crate's own `tests/executor` shows how.

use std::{any::Any, fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc};

use reaper_overlay::ViewRequest;
use reaper_spec::{ContainerId, ExecId, ProcessSpec, Status};
use reaper_state::StateRoot;

use crate::{
    executor::{ContainerConfig, CreateRequest, Error, ExecRequest, Executor, Target},
    io::StdioRequest,
    signal::Signal,
};

/// What a process of the suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// It ends at once with this code.
    Ends(u8),
    /// It lasts until a signal ends it.
    Lasts,
    /// It does not exist.
    Missing,
}

/// An executor without containers, to be checked.
pub struct Subject {
    executor: Arc<dyn Executor>,
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
            root,
            bundle: Box::new(move |_| bundle.clone()),
            args: |program| match program {
                Program::Ends(code) => {
                    vec![
                        "/bin/sh".to_owned(),
                        "-c".to_owned(),
                        format!("exit {code}"),
                    ]
                }
                Program::Lasts => vec!["/bin/sleep".to_owned(), "1000000".to_owned()],
                Program::Missing => vec!["/nowhere/missing".to_owned()],
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
        let id: ContainerId = "conformance".parse().expect("an id");
        let dir = self.root.container(&id);
        std::fs::create_dir_all(dir.path()).expect("the folder of the container");
        let process = self.process(program);
        let request = CreateRequest {
            dir,
            container: ContainerConfig {
                bundle: (self.bundle)(&process),
                view: ViewRequest::new(id.clone(), PathBuf::from("/")),
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

    async fn exec(&self, id: &ContainerId, name: &str, program: Program) -> Result<Target, Error> {
        let exec: ExecId = name.parse().expect("an exec id");
        let request = ExecRequest {
            process: self.process(program),
            process_json: None,
            stdio: StdioRequest::default(),
            preserve_fds: Vec::new(),
            kill_on_disconnect: false,
        };
        self.executor.exec(id, &exec, request).await?;
        Ok(Target::Exec(id.clone(), exec))
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
    /// Panics if the executor breaks the rule, with a message that states how.
    pub async fn check(&self, subject: &Subject) {
        (self.check)(subject).await;
    }
}

/// Checks every rule, each on a separate executor, made by `subject`.
///
/// # Panics
/// If the executor breaks a rule, with a message that states which and how.
pub async fn run(subject: impl Fn() -> Subject) {
    for rule in RULES {
        rule.check(&subject()).await;
    }
}

macro_rules! rules {
    ($($rule:ident)*) => {
        /// The rules, in the order of the contract.
        pub const RULES: &[Rule] = &[$(Rule {
            name: stringify!($rule),
            check: |subject| Box::pin(rules::$rule(subject)),
        }),*];
    };
}

rules! {
    created_process_waits_for_start
    exit_status_is_kept_until_delete
    every_waiter_gets_the_exit_status
    missing_program_is_reported_and_leaves_no_running_process
    a_second_start_is_refused
    kill_ends_created_process_before_start
    kill_of_exited_or_unknown_process_is_refused
    delete_of_running_process_is_refused
    an_exec_needs_a_running_container
    exec_id_is_taken_until_delete
    killed_exec_leaves_container_running
    execs_end_before_init
}

mod rules;

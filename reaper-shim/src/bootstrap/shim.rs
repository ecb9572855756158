//! A shim as its embedder describes it.

use std::sync::Arc;

use reaper_exec::{Engine, Executor};
use reaper_spec::Config;
use reaper_state::{StateRoot, StateStore};

use crate::{Error, Result};

/// What a runtime is opened for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Context {
    /// containerd's namespace.
    pub namespace: String,
    /// The node's configuration.
    pub config: Config,
    /// The state root of the namespace.
    pub root: StateRoot,
}

/// What runs the containers of a shim, and what remembers them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Runtime<E, S: ?Sized> {
    /// Runs them.
    pub executor: E,
    /// Remembers them.
    pub store: Arc<S>,
}

impl<E, S: ?Sized> Runtime<E, S> {
    /// Containers that `executor` runs and `store` remembers.
    pub fn new(executor: E, store: Arc<S>) -> Self {
        Self { executor, store }
    }
}

type Open<E, S> =
    dyn Fn(&Context) -> Result<Runtime<E, S>, Box<dyn std::error::Error + Send + Sync>>;

/// A program that containerd runs as a shim.
///
/// ```no_run
/// # use std::{process::ExitCode, sync::Arc};
/// # use reaper_shim::{Runtime, Shim};
/// # fn executor() -> Arc<dyn reaper_exec::Executor> { unreachable!() }
/// fn main() -> ExitCode {
///     Shim::new("io.containerd.mine.v2", |context| {
///         let store = reaper_state::FileStore::new(context.root.clone());
///         Ok(Runtime::new(executor(), Arc::new(store)))
///     })
///     .run()
/// }
/// ```
pub struct Shim<E, S: ?Sized> {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) run_pause_process: Box<dyn Fn(&Config) -> bool>,
    open: Box<Open<E, S>>,
}

impl<E: Executor + 'static, S: StateStore + ?Sized + 'static> Shim<E, S> {
    /// A shim for the runtime `name`, `io.containerd.NAME.vN`.
    ///
    /// `open` makes the runtime. It is called once in a process, by the daemon when it has won the
    /// socket of its pod and by the action `delete`, and not before: a process that loses the
    /// socket to another has touched nothing. It is called inside of a Tokio runtime.
    pub fn new(
        name: &'static str,
        open: impl Fn(&Context) -> Result<Runtime<E, S>, Box<dyn std::error::Error + Send + Sync>>
        + 'static,
    ) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self {
            name,
            version,
            run_pause_process: Box::new(|_| false),
            open: Box::new(open),
        }
    }

    /// The version that `-v` and `-info` tell. By default this crate's.
    #[must_use]
    pub fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    /// Run sandboxes by the executor where `decide` says so of the node's configuration: see
    /// [`Settings::run_pause_process`](crate::Settings). By default nowhere.
    #[must_use]
    pub fn run_pause_process(mut self, decide: impl Fn(&Config) -> bool + 'static) -> Self {
        self.run_pause_process = Box::new(decide);
        self
    }

    /// The engine of the namespace that the flags name.
    pub(super) fn engine(&self, namespace: &str, config: Config) -> Result<Engine<E, S>> {
        let root = StateRoot::new(&config.state_root).containerd_namespace(namespace);
        let context = Context {
            namespace: namespace.to_owned(),
            config,
            root: root.clone(),
        };
        let runtime = (self.open)(&context).map_err(Error::OpenRuntime)?;
        Ok(Engine::new(runtime.executor, runtime.store, root).blocking_store(true))
    }
}

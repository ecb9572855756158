//! Creating containers, and publishing how they end.
//!
//! The id is reserved before anything is made, so two requests for one id cannot both create it. A
//! creation that exceeds its limit is deleted by force before its error is returned. Each container
//! has one task that waits for its exit; it publishes the exits of exec'd processes first.

use std::{collections::BTreeMap, fmt::Display, path::Path, sync::Arc, time::Duration};

use containerd_shim_protos::{
    api::{CreateTaskRequest, CreateTaskResponse, Mount},
    events::task::{TaskCreate, TaskIO, TaskOOM},
    protobuf::MessageField,
};
use reaper_exec::{ContainerConfig, Executor, MonitorOptions, Target, set_network_parameters};
use reaper_overlay::{RootfsMount, ViewRequest};
use reaper_spec::{
    Bundle, Config, ContainerId, ContainerLimit, ContainerSpec, ContainerType, CriAnnotations,
    Exit, ExitStatus, NamespaceKind, ProcessSpec, Timestamp,
};
use reaper_state::{Record, StateStore};
use tokio::time::timeout;

use super::{Inner, options};
use crate::{
    Error, Event, Result,
    container::Container,
    process::{Process, Stdio},
    sandbox,
    timeout::{blocking, with_timeout},
};

/// How long an exit waits for what is known of kills for lack of memory. A monitor has answered before
/// it reports the exit.
const OOM_LIMIT: Duration = Duration::from_secs(1);

impl<E: Executor + 'static, S: StateStore + ?Sized + 'static> Inner<E, S> {
    pub(super) async fn create(
        self: Arc<Self>,
        request: CreateTaskRequest,
    ) -> Result<CreateTaskResponse> {
        let id = ContainerId::new(request.id.as_str())?;
        if !request.checkpoint.is_empty() {
            return Err(Error::Unsupported {
                operation: "restore",
                target: Target::Init(id).to_string(),
                reason: "there are no checkpoints of processes on the node; create it without one",
            });
        }
        let reservation = self.registry.reserve(id.clone())?;
        let (bundle, config) = self.read(&request).await?;
        let path = bundle.path().to_owned();
        let mut workload = bundle.into_container_spec();
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        // An executor that runs it makes real containers.
        let run_pause_process = self.settings.run_pause_process || config.runtime_path.is_some();
        if !run_pause_process {
            if let Some(ignored) = config.network.apply(&mut workload) {
                tracing::warn!(%id, "{ignored}");
            }
            config.pid.apply(&mut workload);
            workload.check_host(false)?;
        }
        let is_sandbox = !run_pause_process
            && sandbox::is_sandbox(&workload.annotations, &workload.process.args);
        let holds_pids = is_sandbox && workload.new_pid_namespace;
        let policy = config.policy.clone();
        let pid = if is_sandbox {
            self.make_sandbox(id.clone(), &path, workload, config, &stdio)
                .await?
        } else {
            if !run_pause_process {
                let others = self.registry.containers();
                let others = others.iter().map(|one| (one.init.pid(), one.id.clone()));
                let others: Vec<_> = others.collect();
                sandbox::resolve_namespaces(self.engine.store(), &mut workload, &others).await?;
            }
            let mut new = self.new_container(id.clone(), &path, workload, config, &stdio)?;
            new.view.rootfs_mounts = request.rootfs.iter().map(rootfs_mount).collect();
            self.make_init(new, &policy.container_limits()).await?
        };
        let is_sandbox = is_sandbox && !holds_pids;
        self.events.publish(created(&request, pid));
        let init = Process::new(Target::Init(id.clone()), pid, stdio);
        let container =
            Container::new(id, request.bundle, init, is_sandbox, policy).holding_pids(holds_pids);
        let container = Arc::new(container);
        reservation.fill(Arc::clone(&container));
        if !is_sandbox {
            tokio::spawn(self.watch(container));
        }
        Ok(CreateTaskResponse {
            pid,
            ..CreateTaskResponse::default()
        })
    }

    /// Creates the sandbox of a pod, which has no process but the holder of a new pid namespace. Returns its
    /// pid, or without a holder the shim's.
    async fn make_sandbox(
        &self,
        id: ContainerId,
        bundle: &Path,
        workload: ContainerSpec,
        config: Config,
        stdio: &Stdio,
    ) -> Result<u32> {
        // Before anything is changed for it.
        config
            .policy
            .check_sandbox(&CriAnnotations::from_annotations(&workload.annotations))?;
        if !workload.hooks.is_empty() {
            tracing::warn!(%id, "the hooks of a sandbox are not run: it has no process");
        }
        let network = workload.namespace(NamespaceKind::Network);
        let network = network.map(|joined| joined.path.clone());
        let sysctls = workload.network_sysctls();
        if let Some(path) = network.clone() {
            let used = path.clone();
            let set = blocking(move || set_network_parameters(&used, &sysctls)).await;
            set.map_err(|source| Error::File {
                operation: "set the sysctls of the pod's network",
                path,
                source,
            })?;
        }
        let (process, annotations) = (&workload.process, &workload.annotations);
        let view = view(id.clone(), process, Vec::new(), annotations, &config);
        if workload.new_pid_namespace {
            let mut new = container_config(id, bundle, workload, config, stdio);
            sandbox::hold_pids(&mut new, &view, network.as_deref())?;
            return self.make_init(new, &[]).await;
        }
        let (store, bundle) = (self.engine.store(), bundle.to_owned());
        let annotations = workload.annotations;
        let shim = sandbox::create(store, bundle, annotations, &view, network.as_deref());
        Ok(shim.await?.pid)
    }

    /// The bundle, and the configuration that is valid for it.
    async fn read(&self, request: &CreateTaskRequest) -> Result<(Bundle, Config)> {
        let path = request.bundle.clone();
        let runtime_options = request.options.as_ref().cloned();
        let mut config = self.settings.config.clone();
        blocking(move || {
            let bundle = Bundle::load(Path::new(&path))?;
            if let Some(given) = runtime_options {
                options::apply(&mut config, &given)?;
            }
            config.apply_annotations(&bundle.container_spec().annotations)?;
            Ok((bundle, config))
        })
        .await
    }

    fn new_container(
        &self,
        id: ContainerId,
        bundle: &Path,
        mut workload: ContainerSpec,
        config: Config,
        stdio: &Stdio,
    ) -> Result<ContainerConfig> {
        for ignored in config.apply_to_container(&mut workload)? {
            tracing::warn!(%id, "{ignored}");
        }
        workload.process.oom_score_adj = workload
            .process
            .oom_score_adj
            .or(self.settings.oom_score_adj);
        Ok(container_config(id, bundle, workload, config, stdio))
    }

    /// As [`make`](Self::make), and returns the pid of init.
    async fn make_init(&self, new: ContainerConfig, limits: &[ContainerLimit]) -> Result<u32> {
        let process = self.make(new, limits).await?.process;
        Ok(process.map_or(0, |process| process.pid))
    }

    /// Creates the container by the engine. A creation that exceeds its limit is undone: the client
    /// gets an error, and would not delete the container.
    async fn make(&self, new: ContainerConfig, limits: &[ContainerLimit]) -> Result<Record> {
        let id = new.id.clone();
        match with_timeout("create", self.engine.create_within(new, limits)).await {
            Ok((record, warnings)) => {
                for warning in warnings {
                    tracing::warn!(%id, "{warning}");
                }
                Ok(record)
            }
            Err(error) => {
                if matches!(error, Error::Timeout { .. })
                    && let Err(left) = with_timeout("undo", self.engine.delete(&id, true)).await
                {
                    tracing::warn!(%id, error = %left, "a creation could not be undone");
                }
                Err(error)
            }
        }
    }

    /// Publishes the end of a container, after those of its exec'd processes.
    async fn watch(self: Arc<Self>, container: Arc<Container>) {
        let mut oom = tokio::spawn(Arc::clone(&self).watch_oom(container.id.clone()));
        // A panic must not be the end of this task, which alone tells of the container's.
        let waiting = tokio::spawn({
            let (inner, id) = (Arc::clone(&self), container.id.clone());
            async move { inner.engine.wait(&id).await }
        });
        let exit = match waiting.await {
            Ok(Ok(exit)) => exit,
            Ok(Err(error)) => self.uncommitted_exit(&container, &error).await,
            Err(panicked) => self.uncommitted_exit(&container, &panicked).await,
        };
        container.finish_execs().await;
        // containerd takes a reason for an exit only before the exit. The monitor has answered by
        // now, if it knows of such requests.
        if timeout(OOM_LIMIT, &mut oom).await.is_err() {
            oom.abort();
        }
        container.init.ended(exit, &*self.events);
    }

    /// Publishes that the kernel has killed something of the container for lack of memory, until the
    /// container has stopped.
    async fn watch_oom(self: Arc<Self>, id: ContainerId) {
        let mut seen = 0;
        loop {
            // A monitor of an earlier version, and other executors, do not know of it.
            let Ok(kills) = self.engine.executor().oom_kills(&id, seen).await else {
                return;
            };
            if kills <= seen {
                return;
            }
            seen = kills;
            self.events.publish(Event::Oom(TaskOOM {
                container_id: id.to_string(),
                ..TaskOOM::default()
            }));
        }
    }

    /// The end of a container whose end could not be committed, or not be seen. The executor has
    /// made it durable if it knows it at all.
    async fn uncommitted_exit(
        self: &Arc<Self>,
        container: &Container,
        error: &(dyn Display + Sync),
    ) -> Exit {
        let id = &container.id;
        tracing::warn!(%id, %error, "the end of a container could not be committed");
        self.seen_exit(&container.init.target).await
    }

    /// How a process has ended, as far as the executor knows. A panic there is not the end of the caller, which
    /// alone tells of the process's.
    pub(super) async fn seen_exit(self: &Arc<Self>, target: &Target) -> Exit {
        let waiting = tokio::spawn({
            let (inner, target) = (Arc::clone(self), target.clone());
            async move { inner.engine.executor().wait(&target).await }
        });
        let reason = match waiting.await {
            Ok(Ok(exit)) => return exit,
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        Exit::new(ExitStatus::Unknown { reason }, Timestamp::now())
    }
}

/// What the engine is asked for.
fn container_config(
    id: ContainerId,
    bundle: &Path,
    workload: ContainerSpec,
    config: Config,
    stdio: &Stdio,
) -> ContainerConfig {
    let sysctls = workload.network_sysctls();
    let ContainerSpec {
        mut process,
        rootfs,
        mounts,
        restrictions,
        devices,
        rootfs_propagation,
        cgroups_path,
        resources,
        seccomp,
        hooks,
        namespaces,
        new_pid_namespace,
        annotations,
        ..
    } = workload;
    process.terminal = stdio.terminal;
    // containerd says it, not an image.
    let cri = CriAnnotations::from_annotations(&annotations);
    let is_sandbox = cri.container_type == Some(ContainerType::Sandbox);
    let mut view = view(id.clone(), &process, mounts, &annotations, &config)
        .with_rootfs(rootfs)
        .with_restrictions(restrictions)
        .with_devices(devices);
    view.root_propagation = rootfs_propagation;
    view.allowed_mounts = config.policy.allowed_mounts();
    let monitor = MonitorOptions::new()
        .with_cgroups(config.cgroups)
        .with_log(config.log.runtime);
    let mut new = ContainerConfig::new(id, process)
        .with_bundle(bundle.to_owned())
        .with_view(view)
        .with_stdio(stdio.request())
        .with_cgroups_path(cgroups_path)
        .with_resources(resources)
        .with_monitor(monitor)
        .with_runtime(config.runtime_path)
        .with_annotations(annotations);
    new.seccomp = seccomp;
    new.hooks = hooks;
    new.namespaces = namespaces;
    new.new_pid_namespace = new_pid_namespace;
    new.is_sandbox = is_sandbox;
    new.sysctls = sysctls;
    new
}

fn view(
    id: ContainerId,
    process: &ProcessSpec,
    mounts: Vec<reaper_spec::Mount>,
    annotations: &BTreeMap<String, String>,
    config: &Config,
) -> ViewRequest {
    ViewRequest::new(id, process.cwd.clone())
        .with_overlay(config.overlay.clone())
        .with_dns(config.dns)
        .with_image(config.image)
        .with_mounts(mounts)
        .with_pod(&CriAnnotations::from_annotations(annotations))
}

fn rootfs_mount(mount: &Mount) -> RootfsMount {
    RootfsMount {
        typ: mount.type_.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
    }
}

fn created(request: &CreateTaskRequest, pid: u32) -> Event {
    Event::Create(TaskCreate {
        container_id: request.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: request.rootfs.clone(),
        io: MessageField::some(TaskIO {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
            ..TaskIO::default()
        }),
        pid,
        ..TaskCreate::default()
    })
}

//! The daemon: a shim that serves.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixListener},
    time::Duration,
};

use containerd_shim::Flags;
use containerd_shim_protos::ttrpc::r#async::{Server, transport::Listener};
use nix::{
    sys::{
        prctl,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stdin, dup2_stdout, setsid},
};
use reaper_exec::Executor;
use reaper_spec::Config;
use reaper_state::StateStore;
use tokio::{runtime::Builder, task::spawn_blocking};

use super::{
    connections::{Connections, unconnected},
    environment::{READY, bundle, config},
    log,
    monitor_cgroup::Membership,
    shim::Shim,
    signals::{Asked, Signals},
    socket::SocketPath,
};
use crate::{Error, Publisher, Result, Settings, TaskService};

/// How long the last events may take to be delivered when the shim ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// A thread for the disk ends when it had nothing to do for so long, where no pod's limit can keep the next
/// one from being made.
const IDLE_THREAD: Duration = Duration::from_millis(500);
/// How long a shim waits for its first client. containerd connects at once; when it was ended
/// while it started this shim, nothing else would ever end it.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// As low as containerd's own: the kernel should take anything else before the shim.
const OOM_SCORE_ADJ: &str = "-999";
/// The kernel keeps 15 bytes; without it the shim would be called `exe`.
const NAME: &str = "containerd-shim";

pub(super) fn run<E, S>(shim: &Shim<E, S>, flags: &Flags) -> Result<()>
where
    E: Executor + 'static,
    S: StateStore + ?Sized + 'static,
{
    let served = serve(shim, flags);
    if let Err(error) = &served {
        tracing::error!(%error, "the shim ends");
        // Standard output is the way to `start` until the shim serves, and nowhere after.
        let _ = io::stdout().write_all(error.to_string().as_bytes());
    }
    served
}

fn serve<E, S>(shim: &Shim<E, S>, flags: &Flags) -> Result<()>
where
    E: Executor + 'static,
    S: StateStore + ?Sized + 'static,
{
    let config = config()?;
    log::init(&config.log, flags.debug)?;
    let mut membership = Membership::join(&config, &bundle(flags)?, &flags.namespace, &flags.id)?;
    let served = serve_as_member(shim, flags, config, &mut membership);
    // It has not come to serve, and has no containers.
    if let Some(membership) = membership {
        membership.end(false);
    }
    served
}

/// Serves until the service is closed, and takes the membership then.
fn serve_as_member<E, S>(
    shim: &Shim<E, S>,
    flags: &Flags,
    config: Config,
    membership: &mut Option<Membership>,
) -> Result<()>
where
    E: Executor + 'static,
    S: StateStore + ?Sized + 'static,
{
    let oom_score_adj = detach()?;
    let listener = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixListener::from)
        .map_err(|source| Error::System {
            operation: "take over the listener",
            source,
        })?;
    // At a pod's limit of pids there is no new thread. With one that is there work is queued for it; without,
    // tokio panics.
    let idle_thread = match membership {
        Some(_) => Duration::MAX,
        None => IDLE_THREAD,
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .thread_keep_alive(idle_thread)
        .build()
        .map_err(|source| Error::System {
            operation: "make the runtime",
            source,
        })?;
    let keeps_thread = membership.is_some();
    let served = runtime.block_on(async {
        if keeps_thread {
            // It does nothing that could fail.
            let _ = spawn_blocking(|| ()).await;
        }
        let engine = shim.engine(&flags.namespace, config.clone())?;
        let events = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
        let publisher = Publisher::new(&events, &flags.namespace);
        let settings = Settings {
            run_pause_process: (shim.run_pause_process)(&config),
            config,
            oom_score_adj,
        };
        let service = TaskService::new(engine, publisher.clone(), settings);
        let socket = SocketPath::from_address(&flags.socket);
        until_closed(&service, listener, socket, membership).await?;
        if !publisher.drain(DRAIN_LIMIT).await {
            tracing::warn!("containerd is away, the last events are lost");
        }
        Ok(())
    });
    // A thread that hangs in the store's disk must not keep the shim.
    runtime.shutdown_background();
    served
}

/// Serves until the service is closed.
async fn until_closed<E, S>(
    service: &TaskService<E, S>,
    listener: UnixListener,
    socket: SocketPath,
    membership: &mut Option<Membership>,
) -> Result<()>
where
    E: Executor + 'static,
    S: StateStore + ?Sized + 'static,
{
    let system = |operation| move |source| Error::System { operation, source };
    let mut signals = Signals::new().map_err(system("handle signals"))?;
    let identity = socket.identity()?;
    // First of all, so that no new container finds a shim that is about to end.
    service.on_close(move || {
        if let Err(error) = socket.remove(identity) {
            tracing::warn!(%error, "the socket is left behind");
        }
    });
    let (connections, connected) =
        Connections::new(listener).map_err(system("take over the listener"))?;
    let mut server = Server::new()
        .add_listener(Listener::new(connections))
        .register_service(service.services());
    server.start().await.map_err(Error::Serve)?;
    report_ready()?;

    let unconnected = unconnected(connected, CONNECT_LIMIT);
    tokio::pin!(unconnected);
    let (mut is_ending, mut has_containers) = (false, false);
    loop {
        tokio::select! {
            () = service.closed() => break,
            () = &mut unconnected, if !is_ending => {
                tracing::warn!("no client has connected: the shim ends");
                is_ending = true;
                service.close();
            }
            () = service.all_ended(), if is_ending => {
                has_containers = true;
                service.close_with_containers();
            }
            asked = signals.next() => match asked {
                Asked::Reap => reap(),
                Asked::Report => service.log_containers(),
                Asked::End => {
                    is_ending = true;
                    if !service.close() {
                        tracing::warn!(
                            "asked to end by a signal: the shim goes on until its containers have ended"
                        );
                    }
                }
            },
        }
    }
    // Before containerd notices the end: the kubelet kills what is in the cgroup of a pod that has ended.
    if let Some(membership) = membership.take() {
        // It logs what failed. A panic there does not keep the shim from ending.
        let _ = spawn_blocking(move || membership.end(has_containers)).await;
    }
    // What is being answered is answered.
    server.shutdown().await.map_err(Error::Serve)
}

/// Reaps every child that has ended: monitors, and processes that were re-parented to the shim as a
/// subreaper. No other code in this process waits for a child's status.
fn reap() {
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
        tracing::debug!(?status, "reaped");
    }
}

/// Detaches from containerd, and returns the OOM adjustment for workloads that ask for none.
fn detach() -> Result<Option<i32>> {
    let failed = |operation| {
        move |errno: nix::Error| Error::System {
            operation,
            source: errno.into(),
        }
    };
    setsid().map_err(failed("start a session"))?;
    prctl::set_child_subreaper(true).map_err(failed("become a subreaper"))?;
    // The rest is good to have; nothing depends on it.
    let _ = fs::write("/proc/self/comm", NAME);
    let inherited = fs::read_to_string("/proc/self/oom_score_adj").ok();
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        tracing::debug!(%error, "the shim keeps its OOM adjustment");
    }
    // containerd's own adjustment is negative, to protect it. Workloads must not inherit that.
    Ok(inherited
        .and_then(|score| score.trim().parse::<i32>().ok())
        .map(|score| score.max(0)))
}

/// Tells `start`, and lets go of its streams.
fn report_ready() -> Result<()> {
    let system = |operation| move |source: io::Error| Error::System { operation, source };
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(system("open /dev/null"))?;
    let mut stdout = io::stdout();
    stdout
        .write_all(READY)
        .and_then(|()| stdout.flush())
        .map_err(system("tell that the shim serves"))?;
    dup2_stdin(&null).map_err(|errno| system("let go of standard input")(errno.into()))?;
    dup2_stdout(&null).map_err(|errno| system("let go of standard output")(errno.into()))
}

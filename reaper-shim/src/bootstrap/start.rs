//! The action `start`: a shim for a container, new or there already.

use std::{
    fs,
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use containerd_shim::Flags;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reaper_spec::Config;

use super::{
    environment::{READY, SERVE, bundle, config, print},
    monitor_cgroup::{self, PodOfBundle},
    params::Params,
    socket::{Claim, SocketPath},
};
use crate::{Error, Result, service::options};

/// How long the daemon may take until it serves.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// What the daemon's environment keeps of containerd's, besides `REAPER_*`. Where coverage is
/// measured it has to know where that goes.
const KEPT: &[&str] = if cfg!(tarpaulin) {
    &["PATH", "TTRPC_ADDRESS", "LLVM_PROFILE_FILE"]
} else {
    &["PATH", "TTRPC_ADDRESS"]
};

pub(super) fn run(flags: &Flags) -> Result<()> {
    let params = Params::read(flags)?;
    let bundle = bundle(flags)?;
    // What is read for the socket's folder is not read again for the daemon.
    let mut read = None;
    let dir = match &params.socket_dir {
        Some(dir) => dir.into(),
        None => SocketPath::dir(&read.insert(config()?).state_root),
    };
    let pod = PodOfBundle::read(&bundle).unwrap_or_default();
    let group = pod.sandbox_id().unwrap_or(&flags.id);
    let socket = SocketPath::new(&dir, &params.address, &flags.namespace, group);
    let address = socket.address();
    let answer = params.answer(&address)?;
    let file = bundle.join("address");
    let write = || {
        fs::write(&file, &address).map_err(|source| Error::File {
            operation: "write",
            path: file.clone(),
            source,
        })
    };
    let Claim::Won(listener) = socket.claim()? else {
        write()?;
        return print(&answer);
    };
    let identity = socket.identity()?;
    let started = write()
        .and_then(|()| read.map_or_else(config, Ok))
        .and_then(|config| launch(flags, &params, config, &bundle, &socket, listener.into()))
        .and_then(|daemon| print(&answer).inspect_err(|_| end(&daemon)));
    if started.is_err() {
        // What could not be started must not be found by the next one.
        let _ = socket.remove(identity);
        let _ = fs::remove_file(&file);
    }
    started
}

/// Ends a daemon that containerd does not hear of. It goes on if another start has found it and
/// made a container already.
fn end(daemon: &Child) {
    if let Ok(pid) = i32::try_from(daemon.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// Runs the daemon and waits until it serves. It ends by itself if this process is killed
/// meanwhile, and then has no client.
fn launch(
    flags: &Flags,
    params: &Params,
    mut config: Config,
    bundle: &Path,
    socket: &SocketPath,
    listener: OwnedFd,
) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(
            std::env::args_os()
                .next()
                .unwrap_or_else(|| "containerd-shim".into()),
        )
        .args(["-namespace", &flags.namespace, "-id", &flags.id])
        .args(["-address", &params.address, "-socket", &socket.address()])
        .arg("-bundle")
        .arg(bundle);
    if params.debug {
        command.arg("-debug");
    }
    let kept = std::env::vars_os().filter(|(name, _)| {
        name.to_str()
            .is_some_and(|name| name.starts_with("REAPER_") || KEPT.contains(&name))
    });
    if let Some(options) = &params.options {
        options::apply(&mut config, options)?;
    }
    let mut child = command
        .arg(SERVE)
        .current_dir(bundle)
        .env_clear()
        .envs(kept)
        .env("TTRPC_ADDRESS", &params.events)
        .env(monitor_cgroup::VARIABLE, monitor_cgroup::decide(&config)?)
        .stdin(Stdio::from(listener))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| Error::System {
            operation: "run the shim's daemon",
            source,
        })?;
    let said = child
        .stdout
        .take()
        .map(|stdout| listen(stdout, READY_LIMIT));
    match said {
        Some(Ok(said)) if said == READY => Ok(child),
        Some(Ok(said)) => Err(failed(&mut child, &said)),
        Some(Err(source)) => {
            // It may hang. containerd gets an error and would not know this shim: kill it.
            let _ = child.kill();
            Err(Error::System {
                operation: "wait for the shim's daemon",
                source,
            })
        }
        None => Ok(child),
    }
}

fn failed(child: &mut Child, said: &[u8]) -> Error {
    let said = String::from_utf8_lossy(said);
    match child.wait() {
        Ok(status) if said.is_empty() => Error::Daemon(status.to_string()),
        _ => Error::Daemon(said.into_owned()),
    }
}

/// All that comes out of a pipe until it is closed.
fn listen(mut pipe: ChildStdout, limit: Duration) -> std::io::Result<Vec<u8>> {
    let deadline = Instant::now() + limit;
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], left)? == 0 {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let mut chunk = [0; 4096];
        match pipe.read(&mut chunk)? {
            0 => return Ok(said),
            count => said.extend_from_slice(&chunk[..count]),
        }
    }
}

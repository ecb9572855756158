//! The process that `--pid-file` of `create` and `run` names.
//!
//! An engine waits, as a subreaper, for the pid in that file. The container's own process is a child of
//! its monitor, which stays among the node's mounts, so neither serves for both. Therefore the call
//! forks this one first: it becomes the engine's child when the call returns, and stands for the
//! container's init process (`stand_in.rs`); the container is killed when it is.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    process,
};

use nix::{
    sys::wait::waitpid,
    unistd::{Pid, setsid},
};
use reaper_exec::{HostExecutor, Target};
use reaper_spec::ContainerId;
use reaper_state::Record;

use crate::{
    args::GlobalArgs,
    error::{Error, Result},
    outcome::ExitAction,
    settings::Settings,
    signals::Signals,
    stand_in::{enter_namespaces, hide, stay},
    streams,
    sys::{self, Side},
};

/// What it says once it is in place. Anything else is an error message.
const IN_PLACE: &[u8] = b"\0in place";

/// The call's view of it. It ends when this is dropped before it was told of a container.
#[derive(Debug)]
pub(crate) struct Proxy {
    pid: Pid,
    channel: Option<UnixStream>,
}

impl Proxy {
    /// Forks. Only the call returns.
    pub(crate) fn fork(global: &GlobalArgs) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()
            .map_err(Error::io("make the socket to the process of the pid file"))?;
        match sys::fork_single_threaded().map_err(Error::io("fork the process of the pid file"))? {
            Side::Parent(pid) => Ok(Self {
                pid,
                channel: Some(ours),
            }),
            Side::Child => {
                let action = be_proxy(&theirs, global).unwrap_or_else(|error| {
                    // The call has ended, or reads why.
                    let _ = (&theirs).write_all(error.line().as_bytes());
                    ExitAction::Code(1)
                });
                process::exit(action.finish().into())
            }
        }
    }

    /// Has it stand for a container that was created. Returns its pid.
    pub(crate) fn stand_for(mut self, record: &Record) -> Result<u32> {
        let pid = record.process.as_ref().map_or(0, |process| process.pid);
        let mut answer = Vec::new();
        if let Some(mut channel) = self.channel.take() {
            let told = writeln!(channel, "{} {pid}", record.id);
            told.and_then(|()| channel.read_to_end(&mut answer))
                .map_err(Error::io("hear from the process of the pid file"))?;
        }
        if answer == IN_PLACE {
            let pid = self.pid.as_raw().unsigned_abs();
            self.pid = Pid::from_raw(0);
            return Ok(pid);
        }
        let said = String::from_utf8_lossy(&answer);
        Err(Error::HelperFailed(format!(
            "the process of the pid file failed: {said}"
        )))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.channel.take());
        if self.pid.as_raw() != 0 {
            // It ends now, and would otherwise be left to the engine.
            let _ = waitpid(self.pid, None);
        }
    }
}

fn be_proxy(channel: &UnixStream, global: &GlobalArgs) -> Result<ExitAction> {
    close_inherited_but(channel)?;
    let mut line = String::new();
    BufReader::new(channel)
        .read_line(&mut line)
        .map_err(Error::io("hear from the caller"))?;
    let mut words = line.split_whitespace();
    let (Some(id), Some(Ok(pid))) = (words.next(), words.next().map(str::parse)) else {
        // The call has failed.
        return Ok(ExitAction::DONE);
    };
    let id = ContainerId::new(id).map_err(|error| Error::HelperFailed(error.to_string()))?;
    let root = Settings::load(global)?.root;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io(
            "start the async runtime of the process of the pid file",
        ))?;
    runtime.block_on(async {
        let mut signals = Signals::catch()?;
        let monitor = HostExecutor::new(root).connect(&Target::Init(id))?;
        monitor.kill_on_disconnect().await?;
        enter_namespaces(pid)?;
        let mut channel = channel;
        channel
            .write_all(IN_PLACE)
            .and_then(|()| channel.shutdown(std::net::Shutdown::Both))
            .map_err(Error::io("report to the caller"))?;
        Ok(stay(&monitor, &mut signals).await)
    })
}

/// Closes all that is the caller's but `channel`: engines read its streams to their end.
fn close_inherited_but(channel: &UnixStream) -> Result<()> {
    let kept = channel.as_raw_fd().unsigned_abs();
    sys::close_inherited(3, kept - 1)
        .and_then(|()| sys::close_inherited(kept + 1, u32::MAX))
        .map_err(Error::io("close the descriptors of the caller"))?;
    streams::replace_by_null()?;
    // What the terminal sends to the caller's group is not for this process.
    setsid().map_err(|errno| {
        Error::io("begin a session for the process of the pid file")(errno.into())
    })?;
    hide()
}

//! Starting monitors.

use std::{
    io,
    os::{fd::AsFd, unix::process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{HostExecutor, client::MonitorClient};
use crate::{
    channel,
    executor::{Error, Result, Target},
    monitor,
};

/// This program.
pub(super) const ITSELF: &str = "/proc/self/exe";

/// What it means when a monitor ends without an answer.
pub(super) const NO_ANSWER: &str = "ended without an answer: does the program that \
    HostExecutor::monitor_program names call reaper_exec::monitor::run_if_monitor first in its main?";

/// Why a program gets no monitor.
const NOT_ASKED: &str = "cannot be started: this program must call \
    reaper_exec::monitor::run_if_monitor first in its main, since the monitor is this program \
    executed again, or name another program with HostExecutor::monitor_program";

impl HostExecutor {
    /// Starts a monitor that waits for its first call.
    pub(super) fn spawn_monitor(&self, target: &Target) -> Result<MonitorClient> {
        let is_itself = self.program == Path::new(ITSELF);
        if monitor::is_started_as_monitor() || (is_itself && !monitor::becomes_monitor()) {
            return Err(Error::Monitor {
                target: target.clone(),
                reason: NOT_ASKED.to_owned(),
            });
        }
        let failed = |operation: &str| {
            let operation = format!("{operation} of {target} ({})", self.program.display());
            move |source: io::Error| Error::Io { operation, source }
        };
        let (ours, theirs) = channel::pair().map_err(failed("make the socket of the monitor"))?;
        fcntl(ours.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|errno| failed("make the socket of the monitor")(errno.into()))?;
        let mut command = Command::new(&self.program);
        // The environment is the caller's secret: containerd's, a shell's.
        command
            .arg0(monitor::NAME)
            .arg(monitor::ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Where coverage is measured, and only there.
        #[cfg(tarpaulin)]
        command.envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
        let child = self
            .children
            .spawn(command)
            .map_err(failed("start the monitor"))?;
        MonitorClient::new(ours, Some(child)).map_err(failed("watch the monitor"))
    }
}

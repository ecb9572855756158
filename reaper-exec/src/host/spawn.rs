//! Starting monitors.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use reaper_overlay::make_read_only;
use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};

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
        // Until it executes its program, a process of the container is the monitor's: in a script,
        // `#!/proc/self/exe` names this program, and /proc/PID/exe of it the file on the host. A
        // process with the uid of root could change that there, past the overlay (CVE-2019-5736 was
        // one way). Where the kernel lets no such mount be made, the program is executed as it is.
        let protected = is_itself.then(|| read_only_mount(&self.program).ok());
        let program = match protected.as_ref().and_then(Option::as_ref) {
            Some(tree) => format!("/proc/self/fd/{}", tree.as_raw_fd()).into(),
            None => self.program.clone(),
        };
        let mut command = Command::new(program);
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

/// A read-only mount of the file `path` alone, which is mounted nowhere and lasts as long as it is used.
///
/// # Errors
/// `EPERM` for ordinary users, `ENOSYS` before Linux 5.12.
fn read_only_mount(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags)?;
    make_read_only(tree.as_fd())?;
    Ok(tree)
}

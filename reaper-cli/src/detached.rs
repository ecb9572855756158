//! `exec --detach`: a helper that outlives the call and ends as the process does.
//!
//! An engine waits, as a subreaper, for the pid in `--pid-file`. The process itself is a child of
//! the container's monitor, so only the monitor can wait for it. Therefore a detached call forks
//! first: the helper does the work, reports to the caller when the process runs, stays until it
//! ends, and ends in the same way. Signals to it are passed on.

use std::{
    cell::Cell,
    fs::File,
    io::{self, Read, Write},
    process,
};

use nix::{
    sys::wait::waitpid,
    unistd::{Pid, setsid},
};

use crate::{
    args::ExecArgs,
    error::{Error, Result},
    outcome::ExitAction,
    streams,
    sys::{self, Side},
};

/// What the helper says when the process runs. Anything else is an error message.
const RUNNING: &[u8] = b"\0running";

/// What this process is to do.
#[derive(Debug)]
pub(crate) enum HelperRole {
    /// Everything: the call is not detached.
    None,
    /// To wait for the helper's report.
    Caller(Helper),
    /// To do the work, and to report.
    Helper(Report),
}

/// The caller's view of the helper.
#[derive(Debug)]
pub(crate) struct Helper {
    pid: Pid,
    report: File,
}

/// The helper's view of the caller.
#[derive(Debug)]
pub(crate) struct Report {
    pipe: File,
    /// How many descriptors from 3 on are the caller's.
    preserved: u32,
    reported: Cell<bool>,
}

/// Forks. Both sides return.
pub(crate) fn fork_helper(args: &ExecArgs) -> Result<HelperRole> {
    let (report, pipe) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::io("make a pipe")(errno.into()))?;
    match sys::fork_single_threaded().map_err(Error::io("fork"))? {
        Side::Parent(pid) => Ok(HelperRole::Caller(Helper {
            pid,
            report: report.into(),
        })),
        Side::Child => {
            drop(report);
            // What the terminal sends to the caller's group is not for the helper.
            setsid().map_err(|errno| Error::io("make a session")(errno.into()))?;
            let preserved = args.preserve_fds;
            Ok(HelperRole::Helper(Report {
                pipe: pipe.into(),
                preserved,
                reported: Cell::new(false),
            }))
        }
    }
}

impl Helper {
    /// Waits until the process runs. The helper has written the pid file before that.
    pub(crate) fn wait(mut self) -> Result<ExitAction> {
        let report = self
            .report()
            .map_err(Error::io("hear from the helper process"))?;
        if report == RUNNING {
            return Ok(ExitAction::Code(0));
        }
        // It ends now, and would otherwise be left to the engine.
        let ended = waitpid(self.pid, None);
        if report.is_empty() {
            return Err(Error::HelperFailed(format!(
                "the helper process failed: {ended:?}"
            )));
        }
        Err(Error::HelperFailed(
            String::from_utf8_lossy(&report).into_owned(),
        ))
    }

    /// What the helper says until it says that the process runs, or ends.
    fn report(&mut self) -> io::Result<Vec<u8>> {
        let mut report = Vec::new();
        let mut chunk = [0; 4096];
        while report != RUNNING {
            match self.report.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => report.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }
}

impl Report {
    /// The process runs: gives up all that was the caller's, and tells it.
    pub(crate) fn running(&self) -> Result<()> {
        if self.preserved > 0 {
            sys::close_inherited(3, 2 + self.preserved).map_err(Error::io("close"))?;
        }
        streams::give_up()?;
        std::env::set_current_dir("/").map_err(Error::io("leave the working directory"))?;
        self.say(RUNNING)?;
        self.reported.set(true);
        Ok(())
    }

    fn say(&self, message: &[u8]) -> Result<()> {
        (&self.pipe)
            .write_all(message)
            .map_err(Error::io("report to the caller"))
    }

    /// Ends this process as the other one ended.
    pub(crate) fn end(self, outcome: Result<ExitAction>) -> ! {
        let outcome = outcome.unwrap_or_else(|error| {
            let line = error.line();
            if self.reported.get() || self.say(line.as_bytes()).is_err() {
                tracing::error!("{line}");
            }
            ExitAction::Code(u8::MAX)
        });
        process::exit(outcome.finish().into())
    }
}

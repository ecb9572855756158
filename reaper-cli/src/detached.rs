//! `exec --detach`: a helper that outlives the call and ends as the process does.
//!
//! An engine waits, as a subreaper, for the pid in `--pid-file`. The process itself is a child of
//! the container's monitor, so only the monitor can wait for it. Therefore a detached call forks
//! first: the helper does the work, stands for the process (`stand_in.rs`), and reports to the caller
//! when it runs.
//!
//! The helper has to be in the container's mounts before its pid is known, and the pid file is to be
//! written in the caller's, before the program runs. So the caller writes it, when the helper says that
//! it is in place, and the helper starts the program when the caller says that it has.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
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
    pid_file::PidFile,
    stand_in::{enter_namespaces, hide},
    streams,
    sys::{self, Side},
};

/// What the helper says when its pid may be known. Anything but this and [`RUNNING`] is an error
/// message.
const IN_PLACE: &[u8] = b"\0in place";

/// What the caller answers to that.
const GO: &[u8] = b"\0go";

/// What the helper says when the process runs.
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
    channel: UnixStream,
    pid_file: Option<PathBuf>,
}

/// The helper's view of the caller.
#[derive(Debug)]
pub(crate) struct Report {
    channel: UnixStream,
    /// How many descriptors from 3 on are the caller's.
    preserved: u32,
    reported: Cell<bool>,
}

/// Forks. Both sides return.
pub(crate) fn fork_helper(args: &ExecArgs) -> Result<HelperRole> {
    let (ours, theirs) =
        UnixStream::pair().map_err(Error::io("make the socket to the helper of --detach"))?;
    match sys::fork_single_threaded().map_err(Error::io("fork the helper of --detach"))? {
        Side::Parent(pid) => Ok(HelperRole::Caller(Helper {
            pid,
            channel: ours,
            pid_file: args.pid_file.clone(),
        })),
        Side::Child => {
            drop(ours);
            // What the terminal sends to the caller's group is not for the helper.
            setsid().map_err(|errno| {
                Error::io("begin a session for the helper of --detach")(errno.into())
            })?;
            Ok(HelperRole::Helper(Report {
                channel: theirs,
                preserved: args.preserve_fds,
                reported: Cell::new(false),
            }))
        }
    }
}

impl Helper {
    /// Waits until the process runs. Before that the helper's pid is written to the pid file.
    pub(crate) fn wait(self) -> Result<ExitAction> {
        let mut report = self.report()?;
        let mut written = None;
        if report == IN_PLACE {
            let pid = self.pid.as_raw().unsigned_abs();
            let path = self.pid_file.as_deref();
            written = match path.map(|path| PidFile::write(path, pid)).transpose() {
                Ok(written) => written,
                Err(error) => {
                    self.reap();
                    return Err(error);
                }
            };
            // One that has ended has said why.
            let _ = (&self.channel).write_all(GO);
            report = self.report()?;
        }
        if report == RUNNING {
            return Ok(ExitAction::DONE);
        }
        if let Some(pid_file) = written {
            pid_file.undo();
        }
        let ended = self.reap();
        if report.is_empty() {
            return Err(Error::HelperFailed(format!(
                "the helper process failed: {ended}"
            )));
        }
        Err(Error::HelperFailed(
            String::from_utf8_lossy(&report).into_owned(),
        ))
    }

    /// The next thing that the helper says.
    fn report(&self) -> Result<Vec<u8>> {
        let failed = Error::io("hear from the helper process");
        hear(&self.channel, &[IN_PLACE, RUNNING]).map_err(failed)
    }

    /// Waits for the end of the helper, which undoes what it has done when the caller closes the
    /// channel. It would otherwise be left to the engine.
    fn reap(self) -> String {
        drop(self.channel);
        format!("{:?}", waitpid(self.pid, None))
    }
}

impl Report {
    /// The process was made: gives up all that was the caller's, moves to the mounts of process `pid`,
    /// and has the caller write the pid file.
    ///
    /// # Errors
    /// The mounts cannot be entered, or the caller could not write the file, and has said so.
    pub(crate) fn in_place(&self, pid: u32) -> Result<()> {
        if self.preserved > 0 {
            sys::close_inherited(3, 2 + self.preserved)
                .map_err(Error::io("close the preserved descriptors of the helper"))?;
        }
        streams::replace_by_null()?;
        hide()?;
        enter_namespaces(pid)?;
        std::env::set_current_dir("/").map_err(Error::io("leave the working directory"))?;
        self.say(IN_PLACE)?;
        let answer = hear(&self.channel, &[GO]).map_err(Error::io("hear from the caller"))?;
        if answer == GO {
            return Ok(());
        }
        Err(Error::HelperFailed(
            "the caller has ended, or has written no pid file".to_owned(),
        ))
    }

    /// The process runs.
    pub(crate) fn running(&self) -> Result<()> {
        self.say(RUNNING)?;
        self.reported.set(true);
        Ok(())
    }

    fn say(&self, message: &[u8]) -> Result<()> {
        (&self.channel)
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

/// Reads until the other side has said one of `words`, or closes the channel.
fn hear(mut channel: &UnixStream, words: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    let mut chunk = [0; 4096];
    while !words.contains(&&heard[..]) {
        match channel.read(&mut chunk) {
            Ok(0) => break,
            // It has ended with something of this side unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Ok(length) => heard.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(heard)
}

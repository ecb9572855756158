//! Running commands in a view without an engine.

use std::process::{Child, Command, ExitStatus};

use crate::{
    contract::{Context, Error, FilesystemIsolation, View, ViewRequest},
    linux::{helper::Helper, resolve::in_view},
};

/// A view in which ordinary commands can be run, for programs that have no engine of their own.
///
/// All commands of a session see the same mounts. It should be used from a process with a single
/// thread: a forked child does work before it executes the command.
pub struct Session {
    view: Box<dyn View>,
}

impl Session {
    /// Makes the view that `request` asks for.
    ///
    /// # Errors
    /// It cannot be made; nothing is left behind.
    pub fn open(isolation: &dyn FilesystemIsolation, request: &ViewRequest) -> Result<Self, Error> {
        let mut session = Self {
            view: isolation.prepare(request)?,
        };
        let entered = Helper::start("enter the view", || session.view.enter_init());
        let ((), helper) = entered?;
        session
            .view
            .keep_namespace(helper.pid().as_raw().unsigned_abs())?;
        Ok(session)
    }

    /// What people should know of the view, see [`View::warnings`].
    pub fn warnings(&self) -> Vec<String> {
        self.view.warnings()
    }

    /// Starts `command` in the view. Its working directory is the request's, unless it names one
    /// of its own.
    ///
    /// # Errors
    /// The view cannot be entered, or the command not be executed.
    pub fn spawn(&self, mut command: Command) -> Result<Child, Error> {
        for variable in self.view.environment() {
            if let Some((name, value)) = variable.split_once('=') {
                command.env(name, value);
            }
        }
        let program = command.get_program().to_owned();
        // Asked for only after the view was entered: it is a path there.
        let cwd = command.get_current_dir().map(ToOwned::to_owned);
        command.current_dir("/");
        let enter = || {
            let fail = |error: Error| {
                std::io::Error::from_raw_os_error(error.errno().unwrap_or(nix::libc::EIO))
            };
            self.view.enter_exec().map_err(fail)?;
            match &cwd {
                Some(cwd) => in_view::change_dir(cwd),
                None => Ok(()),
            }
        };
        crate::linux::syscall::spawn_after(command, &enter).context("run in the view", program)
    }

    /// Ends the session: what the view holds on the host is given back. All commands have to have
    /// ended.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn close(mut self) -> Result<(), Error> {
        self.view.release()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // `close` reports errors; after it this does nothing.
        let _ = self.view.release();
    }
}

/// Runs one command in the view that `request` asks for, and waits for its end. What it wrote
/// stays in its scope.
///
/// # Errors
/// The view cannot be made, or the command not be run.
pub fn run_in(
    isolation: &dyn FilesystemIsolation,
    request: &ViewRequest,
    command: Command,
) -> Result<ExitStatus, Error> {
    let program = command.get_program().to_owned();
    let session = Session::open(isolation, request)?;
    let status = session
        .spawn(command)?
        .wait()
        .context("wait for", program)?;
    session.close()?;
    Ok(status)
}

//! From containerd's command line to a shim that serves.
//!
//! containerd runs the shim's binary for short actions, `start` and `delete`; the shim itself is
//! the daemon that `start` leaves behind, by running the binary once more with the listener of
//! the socket as its standard input.

mod connections;
mod daemon;
mod delete;
mod environment;
mod info;
mod log;
mod monitor_cgroup;
mod params;
mod shim;
mod signals;
mod socket;
mod start;

use std::{ffi::OsString, process::ExitCode};

use reaper_exec::Executor;
use reaper_state::StateStore;

use self::environment::{SERVE, print};
pub use self::shim::{Context, Runtime, Shim};
use crate::{Error, Result};

impl<E: Executor + 'static, S: StateStore + ?Sized + 'static> Shim<E, S> {
    /// Does what the command line says; the `main` of a shim.
    pub fn run(self) -> ExitCode {
        let args: Vec<OsString> = std::env::args_os().skip(1).collect();
        match self.act(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    fn act(&self, args: &[OsString]) -> Result<()> {
        let flags = containerd_shim::parse(args)?;
        if flags.version {
            return print(format!("{} {}\n", self.name, self.version).as_bytes());
        }
        if flags.info {
            return print(&info::encode(self.name, self.version)?);
        }
        match flags.action.as_str() {
            "start" => start::run(&flags),
            "delete" => delete::run(self, &flags),
            SERVE => daemon::run(self, &flags),
            other => Err(Error::Action(other.to_owned())),
        }
    }
}

//! What the actions and the daemon have in common: what they are given, and how they answer.

use std::{io::Write, path::PathBuf};

use containerd_shim::Flags;
use nix::errno::Errno;
use reaper_exec::io::stdout_was_open;
use reaper_spec::Config;

use crate::{Error, Result};

/// The hidden action of the daemon.
pub(super) const SERVE: &str = "serve";

/// What the daemon tells `start` when it serves. Anything else is an error's text.
pub(super) const READY: &[u8] = b"ready";

pub(super) fn config() -> Result<Config> {
    Ok(Config::load(None, &|name| std::env::var_os(name))?)
}

/// The bundle that an action is about.
pub(super) fn bundle(flags: &Flags) -> Result<PathBuf> {
    if flags.bundle.is_empty() {
        std::env::current_dir().map_err(|source| Error::System {
            operation: "find the current directory",
            source,
        })
    } else {
        Ok(PathBuf::from(&flags.bundle))
    }
}

pub(super) fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout();
    let written = if stdout_was_open() {
        stdout.write_all(bytes).and_then(|()| stdout.flush())
    } else {
        Err(Errno::EBADF.into())
    };
    written.map_err(|source| Error::System {
        operation: "write to standard output",
        source,
    })
}

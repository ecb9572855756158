//! The caller's descriptors, for the processes that get them.

use std::{
    env,
    fs::OpenOptions,
    os::{
        fd::{OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use reaper_exec::io::{StdioFds, StdioRequest, StreamTarget, Streams};
use reaper_spec::ProcessSpec;

use crate::{
    error::{Error, Result},
    sys,
};

/// This call's own standard streams. One that is closed is `/dev/null` for the process.
pub(crate) fn inherited() -> Result<StdioRequest> {
    let mut inherited = [None, None, None];
    let mut targets = [StreamTarget::Null, StreamTarget::Null, StreamTarget::Null];
    for number in 0..3 {
        let own = sys::duplicate(number as RawFd).map_err(Error::io("duplicate a stream"))?;
        if own.is_some() {
            targets[number] = StreamTarget::Inherit;
        }
        inherited[number] = own;
    }
    let [stdin, stdout, stderr] = targets;
    Ok(StdioRequest {
        streams: Streams {
            stdin,
            stdout,
            stderr,
        },
        attachments: StdioFds {
            inherited,
            console_socket: None,
        },
    })
}

/// This call's own standard streams, to be handed to a process that has others already.
pub(crate) fn duplicated() -> Result<[OwnedFd; 3]> {
    let own = |number: RawFd| {
        let failed = Error::io("open /dev/null");
        match sys::duplicate(number).map_err(Error::io("duplicate a stream"))? {
            Some(own) => Ok(own),
            None => OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map(OwnedFd::from)
                .map_err(failed),
        }
    };
    Ok([own(0)?, own(1)?, own(2)?])
}

/// The descriptors of `--preserve-fds`, from 3 on.
pub(crate) fn preserved(count: u32) -> Result<Vec<OwnedFd>> {
    (3..3 + i64::from(count))
        .map(|number| {
            let missing = || Error::Option {
                option: "--preserve-fds",
                problem: format!("{count} were named, but descriptor {number} is not open"),
            };
            let raw = RawFd::try_from(number).map_err(|_| missing())?;
            sys::duplicate(raw)
                .map_err(Error::io("duplicate a descriptor"))?
                .ok_or_else(missing)
        })
        .collect()
}

/// The sockets that a service manager has opened for this call (sd_listen_fds(3)), as far as they
/// are handed on by `--preserve-fds`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sockets(Vec<String>);

impl Sockets {
    /// Those of this call, which is to hand on `preserved` descriptors.
    pub(crate) fn of_caller(preserved: u32) -> Self {
        let number = |name| env::var(name).ok()?.parse::<u32>().ok();
        let count = number("LISTEN_FDS").map_or(0, |count| count.min(preserved));
        if count == 0 || number("LISTEN_PID") != Some(std::process::id()) {
            return Self::default();
        }
        let mut entries = vec![format!("LISTEN_FDS={count}")];
        if let Ok(names) = env::var("LISTEN_FDNAMES") {
            let names: Vec<_> = names.split(':').take(count as usize).collect();
            entries.push(format!("LISTEN_FDNAMES={}", names.join(":")));
        }
        Self(entries)
    }

    /// Tells `process` of them. Its `LISTEN_PID` is set when it has a pid.
    pub(crate) fn announce(&self, process: &mut ProcessSpec) {
        if self.0.is_empty() {
            return;
        }
        process.env.retain(|entry| !is_of_sockets(entry));
        process.env.extend(self.0.iter().cloned());
    }
}

/// Whether a variable tells of sockets that were handed over.
pub(crate) fn is_of_sockets(entry: &str) -> bool {
    ["LISTEN_FDS=", "LISTEN_PID=", "LISTEN_FDNAMES="]
        .iter()
        .any(|name| entry.starts_with(name))
}

/// A console socket that an engine listens on.
pub(crate) fn engine_console(path: &Path) -> Result<StdioRequest> {
    let socket = UnixStream::connect(path).map_err(Error::io(format!(
        "connect to the console socket {}",
        path.display()
    )))?;
    Ok(console(socket.into()))
}

/// A terminal whose master goes to `socket`.
pub(crate) fn console(socket: OwnedFd) -> StdioRequest {
    StdioRequest {
        streams: Streams::default(),
        attachments: StdioFds {
            console_socket: Some(socket),
            ..StdioFds::default()
        },
    }
}

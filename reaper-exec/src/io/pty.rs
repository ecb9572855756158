//! Pseudoterminals.

use std::{ffi::CString, io, os::fd::OwnedFd};

use reaper_spec::ConsoleSize;
use rustix::{
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// A new terminal.
#[derive(Debug)]
pub(super) struct Pty {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
    pub(super) name: CString,
}

impl Pty {
    /// Opens a terminal that is not a controlling terminal yet.
    pub(super) fn open() -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        Self::of(master)
    }

    /// The terminal of a master that an OCI runtime has opened.
    pub(super) fn of(master: OwnedFd) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let name = ptsname(&master, Vec::new())?;
        // Not by its name, which could be another terminal's in another mount of devpts.
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        Ok(Self {
            master,
            slave,
            name,
        })
    }
}

/// Sets the size; the foreground process group is sent SIGWINCH. Works on either side.
pub(super) fn resize(terminal: &OwnedFd, size: ConsoleSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.height,
        ws_col: size.width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

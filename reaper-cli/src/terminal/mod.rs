//! A person's terminal and the terminal of a process, joined.

mod console;
mod pump;
mod raw;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use reaper_spec::ConsoleSize;
use rustix::{
    stdio,
    termios::{Winsize, isatty, tcgetwinsize, tcsetwinsize},
};

pub(crate) use self::console::Console;
use self::{pump::Pump, raw::RawMode};
use crate::error::{Error, Result};

/// The size of the terminal that this call was made from, if any.
pub(crate) fn own_size() -> Option<ConsoleSize> {
    let size = own_winsize()?;
    Some(ConsoleSize {
        width: size.ws_col,
        height: size.ws_row,
    })
}

fn own_winsize() -> Option<Winsize> {
    [stdio::stdin(), stdio::stdout(), stdio::stderr()]
        .into_iter()
        .find_map(|stream| tcgetwinsize(stream).ok())
        .filter(|size| size.ws_col > 0 && size.ws_row > 0)
}

/// This call serves the terminal of a process: what is typed goes there, what it prints comes
/// here. The own terminal, if standard input is one, is in raw mode until this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    master: Arc<OwnedFd>,
    raw: Option<RawMode>,
    pump: Pump,
}

impl Session {
    /// Joins the own terminal and the one whose master this is.
    pub(crate) fn start(master: OwnedFd) -> Result<Self> {
        let master = Arc::new(master);
        let stdin = stdio::stdin();
        let raw = if isatty(stdin) {
            Some(RawMode::enter().map_err(Error::io("put the terminal in raw mode"))?)
        } else {
            None
        };
        let pump = Pump::start(&master).map_err(Error::io("serve the terminal"))?;
        Ok(Self { master, raw, pump })
    }

    /// Takes over the size of the own terminal.
    pub(crate) fn resize(&self) {
        if let Some(size) = own_winsize()
            && let Err(error) = tcsetwinsize(self.master(), size)
        {
            tracing::debug!("resize the terminal: {error}");
        }
    }

    /// Puts the own terminal back as it was, for the time that this call is stopped.
    pub(crate) fn leave_raw_mode(&self) {
        if self.raw.is_some() {
            raw::restore();
        }
    }

    /// The opposite of [`leave_raw_mode`](Self::leave_raw_mode).
    pub(crate) fn enter_raw_mode(&mut self) {
        if self.raw.is_some() {
            match RawMode::enter() {
                Ok(again) => self.raw = Some(again),
                Err(error) => tracing::warn!("put the terminal in raw mode: {error}"),
            }
        }
    }

    /// Returns once, when the reader of the output has closed it.
    pub(crate) async fn hung_up(&mut self) {
        self.pump.hung_up().await;
    }

    /// The process has ended: prints what it left, and puts the own terminal back.
    pub(crate) fn finish(self) {
        self.pump.finish();
    }

    fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

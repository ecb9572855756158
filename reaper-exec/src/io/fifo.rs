//! FIFOs that are handed to the process itself.
//!
//! Nothing is copied: the process gets a separate end, opened afresh and blocking. The monitor
//! holds ends so that neither side notices the other come and go, and lets go of them by a rule
//! that loses no output and leaves no reader behind.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

use super::{contract::IoError, locate::Located};

/// What the monitor holds of a FIFO that a process writes to.
///
/// While the process lives: a read end, which is never read, so that a reader that dies leads to a
/// full pipe instead of SIGPIPE, and a write end, so that a reader sees no end of file before the
/// process's. Once it has ended, [`release`](Self::release) applies the closing rule:
///
/// * The read end is closed. If there is a reader, the write end is closed too: the reader gets
///   what is buffered and then the end of file.
/// * If there is none, the write end stays, for it is what keeps the output, and lets a reader
///   open the FIFO without waiting for a writer that will never come. inotify reports that reader.
#[derive(Debug)]
pub(super) struct OutputFifo {
    reader: Option<OwnedFd>,
    writer: Option<OwnedFd>,
    watch: Option<Inotify>,
}

impl OutputFifo {
    /// Holds a FIFO. Does not wait for a reader.
    pub(super) fn hold(fifo: &Located) -> Result<Self, IoError> {
        // The read end comes first: without a reader a nonblocking open for writing fails.
        let reader = fifo.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        let writer = fifo.open(OFlag::O_WRONLY | OFlag::O_NONBLOCK)?;
        Ok(Self {
            reader: Some(reader),
            writer: Some(writer),
            watch: None,
        })
    }

    /// The nonblocking write end, until it is closed.
    pub(super) fn writer(&self) -> Option<BorrowedFd<'_>> {
        self.writer.as_ref().map(AsFd::as_fd)
    }

    /// Closes the ends after the last write: at once, or when a reader has come. Idempotent.
    pub(super) fn release(&mut self) {
        if self.reader.take().is_some() {
            self.close_if_read();
        }
    }

    /// What to wait for after [`release`](Self::release), with `POLLIN`.
    pub(super) fn interest(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// The [`interest`](Self::interest) may be ready.
    pub(super) fn ready(&mut self) {
        if let Some(watch) = &self.watch {
            // Before the look at the FIFO, or a reader that comes in between would be missed. What
            // it says does not matter: the kernel merges events.
            let _ = watch.read_events();
            self.close_if_read();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.writer.is_none()
    }

    fn close_if_read(&mut self) {
        let Some(writer) = &self.writer else { return };
        if has_reader(writer) {
            self.close();
        } else if self.watch.is_none() {
            match watch_opens(writer) {
                Ok(watch) => {
                    self.watch = Some(watch);
                    // A reader may have come before the watch existed.
                    if has_reader(writer) {
                        self.close();
                    }
                }
                // The output is kept until the process is deleted; only the end of file is late.
                Err(error) => tracing::warn!(
                    %error,
                    "cannot watch a FIFO for its reader (see fs.inotify.max_user_instances); \
                     a late one sees no end of file before the deletion"
                ),
            }
        }
    }

    fn close(&mut self) {
        self.writer = None;
        self.watch = None;
    }
}

/// inotify instances are scarce (128 for each user by default, and every monitor is root's), so
/// there is one only while a reader is missing.
fn watch_opens(fifo: &OwnedFd) -> Result<Inotify, Errno> {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let path = format!("/proc/self/fd/{}", fifo.as_raw_fd());
    watch.add_watch(path.as_str(), AddWatchFlags::IN_OPEN)?;
    Ok(watch)
}

fn has_reader(writer: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(writer.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(0) => true,
        Ok(_) => !fds[0]
            .revents()
            .unwrap_or(PollFlags::POLLERR)
            .contains(PollFlags::POLLERR),
        // EINTR and ENOMEM: the next event asks again.
        Err(_) => false,
    }
}

/// The ends of a FIFO that a process reads from.
#[derive(Debug)]
pub(super) struct InputFifo {
    /// The end to read from.
    pub(super) reader: OwnedFd,
    /// Keeps a reader from the end of file while clients come and go. For writing only, so that a
    /// client that writes to a process that is gone is told.
    pub(super) keep_alive: OwnedFd,
}

impl InputFifo {
    /// Opens a FIFO, with more `flags` for the reader. Does not wait for a writer.
    pub(super) fn open(fifo: &Located, flags: OFlag) -> Result<Self, IoError> {
        // Linux opens a FIFO for reading and writing without waiting for a peer, see fifo(7).
        let both = fifo.open(OFlag::O_RDWR | OFlag::O_NONBLOCK)?;
        let reader = fifo.open(OFlag::O_RDONLY | flags)?;
        let keep_alive = fifo.open(OFlag::O_WRONLY | OFlag::O_NONBLOCK)?;
        drop(both);
        Ok(Self { reader, keep_alive })
    }
}

//! The bytes between a person's streams and a terminal's master.
//!
//! Two threads with blocking calls, one a direction, so that neither direction waits for the
//! other, and so that the caller's streams keep their flags: `O_NONBLOCK` belongs to
//! the open file, which other programs on the terminal share.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
    stdio,
    termios::isatty,
};
use tokio::sync::oneshot;

const CHUNK: usize = 32 << 10;
/// What a terminal takes for the end of input at the start of a line.
const END_OF_TRANSMISSION: u8 = 4;

#[derive(Debug)]
pub(crate) struct Pump {
    output: JoinHandle<()>,
    /// Closed to say that the process has ended.
    running: OwnedFd,
    hung_up: Option<oneshot::Receiver<()>>,
}

impl Pump {
    pub(crate) fn start(master: &Arc<OwnedFd>) -> io::Result<Self> {
        let (ended, running) = pipe_with(PipeFlags::CLOEXEC)?;
        let (hang_up, hung_up) = oneshot::channel();
        let source = Arc::clone(master);
        let output = thread::Builder::new()
            .name("terminal-output".into())
            .spawn(move || {
                let mut hang_up = Some(hang_up);
                pass_output(source.as_fd(), stdio::stdout(), ended.as_fd(), || {
                    if let Some(hang_up) = hang_up.take() {
                        // The receiver is dropped when the process has just ended, and needs no
                        // hang-up.
                        let _ = hang_up.send(());
                    }
                });
            })?;
        let sink = Arc::clone(master);
        // It may wait for a key for ever: it ends with this program.
        thread::Builder::new()
            .name("terminal-input".into())
            .spawn(move || pass_input(stdio::stdin(), sink.as_fd()))?;
        Ok(Self {
            output,
            running,
            hung_up: Some(hung_up),
        })
    }

    /// Returns once, when the reader of the output has closed it.
    pub(crate) async fn hung_up(&mut self) {
        if let Some(hung_up) = &mut self.hung_up {
            let told = hung_up.await.is_ok();
            self.hung_up = None;
            if told {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Passes on what the process left in the terminal, and returns.
    pub(crate) fn finish(self) {
        drop(self.running);
        if self.output.join().is_err() {
            tracing::warn!("the terminal's output was cut short");
        }
    }
}

/// Copies the master's output until the terminal is closed, or until `ended` hangs up and nothing
/// is left: a process in the background may keep the terminal open.
fn pass_output(
    master: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    ended: BorrowedFd<'_>,
    mut hang_up: impl FnMut(),
) {
    let mut buffer = vec![0; CHUNK];
    let mut draining = false;
    let mut heard = true;
    loop {
        let mut wanted = [
            PollFd::from_borrowed_fd(master, PollFlags::IN),
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
        ];
        let watched = if draining {
            &mut wanted[..1]
        } else {
            &mut wanted[..]
        };
        let limit = draining.then_some(Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        });
        match poll(watched, limit.as_ref()) {
            Ok(0) => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if wanted[0].revents().is_empty() {
            draining |= !wanted[1].revents().is_empty();
            continue;
        }
        match read(master, &mut buffer) {
            // EIO: every other side is closed, as it should be at the end.
            Ok(0) | Err(Errno::IO) => return,
            Ok(length) if heard => {
                if write_all(output, &buffer[..length]).is_err() {
                    heard = false;
                    hang_up();
                }
            }
            // The output has no reader: drop it, so that the process does not block in write(2) and
            // can act on its SIGHUP.
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

/// Copies the input to the master until either ends.
fn pass_input(input: BorrowedFd<'_>, master: BorrowedFd<'_>) {
    let mut buffer = vec![0; CHUNK];
    let mut last = b'\n';
    loop {
        let mut wanted = [PollFd::from_borrowed_fd(input, PollFlags::IN)];
        match poll(&mut wanted, None).and_then(|_| read(input, &mut buffer)) {
            Ok(0) => break,
            Ok(length) => {
                last = buffer[length - 1];
                if write_all(master, &buffer[..length]).is_err() {
                    return;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // What cannot be read, such as a directory, has nothing more either.
            Err(_) => break,
        }
    }
    if !isatty(input) {
        // A file or a pipe has ended; a terminal passes that on as a character. In the middle of
        // a line the first only ends the line.
        let end = [END_OF_TRANSMISSION; 2];
        let length = if last == b'\n' { 1 } else { 2 };
        // A terminal that is closed needs no end.
        let _ = write_all(master, &end[..length]);
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            // Another program that shares the stream has set O_NONBLOCK on it.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

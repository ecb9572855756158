//! Signals that this call passes on to the process it stays with.

use std::{future::poll_fn, task::Poll};

use reaper_exec::{Error as ExecutorError, Executor, Signal, Target};
use tokio::signal::unix::{self, SignalKind};

use crate::error::{Error, Result};

/// What is passed on. The others have a meaning for this process alone, end it whatever it does,
/// or (the keyboard's stop) are for [`Event::Stop`].
const FORWARDED: [i32; 7] = [
    nix::libc::SIGHUP,
    nix::libc::SIGINT,
    nix::libc::SIGQUIT,
    nix::libc::SIGTERM,
    nix::libc::SIGUSR1,
    nix::libc::SIGUSR2,
    nix::libc::SIGALRM,
];

/// What a signal to this call means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is for the process.
    Forward(Signal),
    /// The window has another size.
    Resize,
    /// SIGTSTP: this call stops, and the process with it.
    Stop,
    /// This call was continued.
    Continue,
}

/// The signals to this call, from the making of this value on.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Event, unix::Signal)>);

impl Signals {
    pub(crate) fn catch() -> Result<Self> {
        let forwarded = FORWARDED
            .into_iter()
            .filter_map(|number| Some((number, Event::Forward(Signal::try_from(number).ok()?))));
        let own = [
            (nix::libc::SIGWINCH, Event::Resize),
            (nix::libc::SIGTSTP, Event::Stop),
            (nix::libc::SIGCONT, Event::Continue),
        ];
        forwarded
            .chain(own)
            .map(|(number, event)| Ok((event, unix::signal(SignalKind::from_raw(number))?)))
            .collect::<std::io::Result<_>>()
            .map(Self)
            .map_err(Error::io("catch signals"))
    }

    pub(crate) async fn next(&mut self) -> Event {
        poll_fn(|context| {
            for (event, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*event);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Passes a signal on. A process that has ended no longer needs it.
pub(crate) async fn pass_on<E: Executor + ?Sized>(executor: &E, target: &Target, signal: Signal) {
    match executor.kill(target, signal, false).await {
        Ok(()) | Err(ExecutorError::Ended(_) | ExecutorError::NotFound(_)) => {}
        Err(error) => tracing::warn!("pass {signal} on to {target}: {error}"),
    }
}

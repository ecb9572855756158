//! Signals that this call passes on to the process it stays with.

use std::{fs, future::poll_fn, task::Poll};

use nix::sys::stat::{Mode, umask};
use reaper_exec::{
    Error as ExecutorError, Executor, Inherited, Result as ExecutorResult, Signal, Target,
};
use tokio::signal::unix::{self, SignalKind};

use crate::error::{Error, Result};

/// What is passed on. The others have a meaning for this process alone, end it whatever it does,
/// or (the keyboard's stop) are for [`Event::Stop`].
const FORWARDED: [i32; 5] = [
    nix::libc::SIGHUP,
    nix::libc::SIGTERM,
    nix::libc::SIGUSR1,
    nix::libc::SIGUSR2,
    nix::libc::SIGALRM,
];

/// What a terminal sends to its whole foreground process group.
const KEYS: [i32; 2] = [nix::libc::SIGINT, nix::libc::SIGQUIT];

/// What a program ignores whose caller has told it to: nohup(1), or a shell without job control
/// that starts it in the background. They stay ignored here as well.
const IGNORABLE: [i32; 3] = [nix::libc::SIGHUP, nix::libc::SIGINT, nix::libc::SIGQUIT];

/// What a signal to this call means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is for the process.
    Forward(Signal),
    /// It is for the process and those in its group: a key was pressed.
    Key(Signal),
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
        let ignored = ignored()?;
        let event = |numbers: &'static [i32], event: fn(Signal) -> Event| {
            numbers
                .iter()
                .filter_map(move |&number| Some((number, event(Signal::try_from(number).ok()?))))
        };
        let forwarded = event(&FORWARDED, Event::Forward)
            .chain(event(&KEYS, Event::Key))
            .filter(|(number, _)| !ignored.iter().any(|signal| signal.number() == *number));
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

/// What a command has from the caller of this program, besides what its process says.
pub(crate) fn inherited() -> Result<Inherited> {
    // It can only be asked for by setting it.
    let own = umask(Mode::empty());
    umask(own);
    Ok(Inherited::new()
        .with_umask(own.bits())
        .with_scheduling(true)
        .with_ignored_signals(ignored()?))
}

/// Those of [`IGNORABLE`] that this program was started with ignoring.
fn ignored() -> Result<Vec<Signal>> {
    let status = fs::read_to_string("/proc/self/status").map_err(Error::io("read /proc"))?;
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0);
    let ignored = IGNORABLE
        .into_iter()
        .filter(|number| set & (1 << (number - 1)) != 0);
    Ok(ignored
        .filter_map(|number| Signal::try_from(number).ok())
        .collect())
}

/// Passes a signal on. A process that has ended no longer needs it.
pub(crate) async fn pass_on<E: Executor + ?Sized>(executor: &E, target: &Target, signal: Signal) {
    passed(executor.kill(target, signal, false).await, target, signal);
}

/// Passes a signal on to the process and those in its group.
pub(crate) async fn pass_on_to_group<E: Executor + ?Sized>(
    executor: &E,
    target: &Target,
    signal: Signal,
) {
    passed(executor.kill_group(target, signal).await, target, signal);
}

fn passed(result: ExecutorResult<()>, target: &Target, signal: Signal) {
    match result {
        Ok(()) | Err(ExecutorError::Ended(_) | ExecutorError::NotFound(_)) => {}
        Err(error) => tracing::warn!("pass {signal} on to {target}: {error}"),
    }
}

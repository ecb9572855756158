//! Staying with a process until it ends.

use reaper_exec::{Executor, Signal, Target};
use reaper_spec::{Exit, ExitStatus};

use crate::{
    error::{Error, Result},
    outcome::ExitAction,
    signals::{Event, Signals, pass_on, pass_on_to_group},
    terminal::Session,
};

/// Stays with a process that was started: passes signals on, serves its terminal, and returns
/// what `ended` does, and how this program is to end.
///
/// A process that a key such as Ctrl-C has ended by its signal ends this program by that signal as
/// well: a shell that waits for this program has got it too, and goes on with its script after an
/// exit code.
pub(crate) async fn run_foreground<E: Executor + ?Sized>(
    executor: &E,
    target: &Target,
    signals: &mut Signals,
    mut session: Option<Session>,
    ended: impl Future<Output = Result<Exit>>,
) -> Result<(Exit, ExitAction)> {
    let mut ended = std::pin::pin!(ended);
    // A terminal of its own has its own keys.
    let has_keys = session.is_none();
    let mut keys = Vec::new();
    loop {
        tokio::select! {
            exit = &mut ended => {
                if let Some(session) = session {
                    session.finish();
                }
                let exit = exit?;
                let action = match exit.status {
                    ExitStatus::Signaled { signal, .. } if keys.contains(&signal) => {
                        ExitAction::ExitLike(exit.status.clone())
                    }
                    _ => ExitAction::of(&exit.status),
                };
                return Ok((exit, action));
            }
            event = signals.next() => {
                if let Event::Key(signal) = event
                    && has_keys
                {
                    keys.push(signal.number());
                }
                handle(executor, target, event, session.as_mut()).await?;
            }
            () = hung_up(session.as_mut()) => pass_on(executor, target, signal(nix::libc::SIGHUP)).await,
        }
    }
}

async fn handle<E: Executor + ?Sized>(
    executor: &E,
    target: &Target,
    event: Event,
    session: Option<&mut Session>,
) -> Result<()> {
    match (event, session) {
        (Event::Forward(signal), _) => pass_on(executor, target, signal).await,
        (Event::Key(signal), _) => pass_on_to_group(executor, target, signal).await,
        (Event::Resize, Some(session)) => session.resize(),
        (Event::Resize, None) => {}
        (Event::Stop, session) => {
            // The process has its own session, so its process group is orphaned. SIGTSTP is ignored
            // in an orphaned process group (setpgid(2)), SIGSTOP is not.
            pass_on_to_group(executor, target, signal(nix::libc::SIGSTOP)).await;
            if let Some(session) = &session {
                session.leave_raw_mode();
            }
            nix::sys::signal::raise(nix::sys::signal::SIGSTOP)
                .map_err(|errno| Error::io("stop this process by SIGSTOP")(errno.into()))?;
        }
        (Event::Continue, session) => {
            if let Some(session) = session {
                session.enter_raw_mode();
                session.resize();
            }
            pass_on_to_group(executor, target, signal(nix::libc::SIGCONT)).await;
        }
    }
    Ok(())
}

async fn hung_up(session: Option<&mut Session>) {
    match session {
        Some(session) => session.hung_up().await,
        None => std::future::pending().await,
    }
}

fn signal(number: i32) -> Signal {
    Signal::try_from(number).unwrap_or(Signal::TERM)
}

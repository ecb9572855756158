//! Runs a container again until it succeeds.

use reaper_exec::{ContainerConfig, Engine, Executor, engine};
use reaper_spec::{Exit, ExitStatus};
use reaper_state::StateStore;

use crate::foreground::to_its_end;

/// Runs the container that `make` describes until it exits with 0, at most `attempts` times, and
/// returns how it ended the last time. Each attempt's container is deleted.
///
/// What is not tried again: a container that a signal has ended, as somebody wanted that, and one
/// that cannot be made or started, as it could not the next time either.
///
/// # Errors
/// What the engine says; nothing is left of the attempt then, unless it is the deletion that
/// failed.
pub async fn until_success<E: Executor, S: StateStore + ?Sized + 'static>(
    engine: &Engine<E, S>,
    attempts: u32,
    make: impl Fn() -> ContainerConfig,
) -> engine::Result<Exit> {
    let mut attempt = 1;
    loop {
        let exit = to_its_end(engine, make()).await?;
        match exit.status {
            ExitStatus::Exited { code } if code != 0 && attempt < attempts => attempt += 1,
            _ => return Ok(exit),
        }
    }
}

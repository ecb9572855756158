//! The way into a scope that is alive.

use std::fs::File;

use nix::sched::{CloneFlags, setns};

use crate::{Error, error::Context, live::open_pin, rootless, scope::ScopePaths};

/// Moves the calling process, which has one thread, into a scope.
pub(crate) type Enter<'a> = &'a dyn Fn() -> Result<(), Error>;

/// The same, with what it needs for that.
pub(crate) type Entrance = Box<dyn Fn() -> Result<(), Error>>;

/// How to enter the scope; `None` if it is not mounted.
pub(crate) fn find(paths: &ScopePaths) -> Result<Option<Entrance>, Error> {
    if rootless::is_needed() {
        let found = rootless::find(paths)?;
        return Ok(found.map(|namespaces| Box::new(move || namespaces.enter()) as Entrance));
    }
    let pin = open_pin(paths)?;
    Ok(pin.map(|pin| Box::new(move || by_pin(&pin)) as Entrance))
}

/// Enters the scope whose mount namespace `pin` is.
pub(crate) fn by_pin(pin: &File) -> Result<(), Error> {
    setns(pin, CloneFlags::CLONE_NEWNS).context("enter", "the mount namespace of the scope")
}

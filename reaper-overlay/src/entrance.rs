//! The way into a scope that is alive.

use crate::{
    contract::{Error, user},
    pin::Pin,
    rootless::member,
    store::paths::ScopePaths,
};

/// Moves the calling process, which has one thread, into a scope.
pub(crate) type Enter<'a> = &'a dyn Fn() -> Result<(), Error>;

/// The same, with what it needs for that.
pub(crate) type Entrance = Box<dyn Fn() -> Result<(), Error>>;

/// How to enter the scope; `None` if it is not mounted.
pub(crate) fn find(paths: &ScopePaths) -> Result<Option<Entrance>, Error> {
    if user::is_needed() {
        let found = member::find(paths)?;
        return Ok(found.map(|namespaces| Box::new(move || namespaces.enter()) as Entrance));
    }
    let pin = Pin::open(paths)?;
    Ok(pin.map(|pin| Box::new(move || pin.enter()) as Entrance))
}

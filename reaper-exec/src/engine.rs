//! An executor and a store together: the lives of containers.

mod base;
mod create;
mod error;
mod lifecycle;
mod record;
mod request;
mod stored;
mod watch;

pub use self::{
    base::Engine,
    create::SCOPE_ANNOTATION,
    error::{Error, Result},
    request::NewContainer,
    watch::{LifeChange, LifeEvent, Watch},
};

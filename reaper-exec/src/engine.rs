//! An executor and a store together: the lives of containers.
//!
//! Neither knows the other. The executor, whose monitors cannot have every program's store,
//! reports; the program that asked, or that next reads the container, commits. So any number of
//! programs can work on one state root, and a commit that did not happen is made up for by the next
//! reader.

mod base;
mod changes;
mod create;
mod error;
mod lifecycle;
mod limit;
mod metrics;
mod record;
mod stored;
mod watch;

pub use self::{
    base::Engine,
    create::SCOPE_ANNOTATION,
    error::{Error, Result},
    metrics::{Metrics, OperationMetrics},
    stored::ENGINE_PREFIX,
    watch::{Event, EventKind, EventStream},
};
pub use crate::executor::ContainerConfig;

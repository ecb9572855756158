//! Cgroups: a container is a cgroup of the v2 hierarchy, with a leaf for init and for each exec.
//!
//! What they are for is to know exactly which processes belong to a container, and to kill and
//! freeze all of them; no limit follows from them. So a v2 hierarchy without controllers, as
//! hybrid hosts have it, will do. The processes are in leaves, never in the container's cgroup
//! itself: where controllers are enabled the kernel allows processes in leaves only.

mod container;
mod error;
mod hierarchy;
mod leaf;
mod stats;
mod subtree;

pub use container::ContainerCgroup;
pub use error::Error;
pub use hierarchy::Hierarchy;
pub use leaf::Leaf;
pub use stats::CgroupStats;
pub use subtree::{Events, read_events};

#[cfg(test)]
mod tests;

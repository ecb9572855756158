//! Cgroups: a container has one in each hierarchy that is mounted.
//!
//! In version 2's it has a leaf for init and for each exec: that is how it is known exactly which
//! processes belong to the container and to each exec, and how all of them are killed and frozen,
//! also where that hierarchy has no controllers, as on hybrid hosts. The processes are in leaves,
//! never in the container's cgroup itself: where controllers are enabled the kernel allows processes
//! in leaves only. Each controller is in the hierarchy that the host has it in, of version 1 or 2,
//! and accounts and limits there.

mod claim;
mod container;
#[cfg(feature = "systemd")]
mod dbus;
pub(crate) mod devices;
mod error;
mod folder;
mod hierarchy;
mod leaf;
pub(crate) mod limits;
mod monitor;
mod oom;
mod set;
mod stats;
mod subtree;
pub(crate) mod systemd;
mod v1;

pub use claim::Claim;
pub use container::ContainerCgroup;
pub(crate) use container::{EXEC_LEAF, INIT_LEAF};
pub use devices::DeviceControl;
pub use error::Error;
pub use hierarchy::Hierarchy;
pub use leaf::Leaf;
pub use monitor::{MonitorCgroup, Origin};
pub(crate) use oom::OomNotifier;
pub use set::{Cgroups, Hierarchies};
pub use stats::{CgroupStats, CpuStats, IoStats, MemoryStats, PidsStats, UsageStats};
pub use subtree::{Events, read_events};
#[cfg(feature = "fuzzing")]
pub(crate) use v1::parse_own as v1_hierarchies;
pub use v1::{V1Cgroup, V1Hierarchy};

#[cfg(test)]
mod tests;

//! What the node's admin allows containers to ask for.
//!
//! Each file that has a table `[policy]` adds a set of rules, and a container has to keep the
//! rules of all sets: so a handler's file can only narrow what the node's own file allows.

mod check;
mod mounts;
mod rules;
mod values;

pub use self::{
    mounts::AllowedMounts,
    rules::{ContainerLimit, PolicyConfig, PolicyRules, PolicySource},
    values::{HostPath, IdRange, ParsePolicyError, Privileges, RlimitCeiling},
};

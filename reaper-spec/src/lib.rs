//! Validated value types for containers that run directly on the host.
//!
//! An OCI bundle is somebody else's JSON. This crate turns it into values that are known to be
//! usable, ids that are safe as file names, argument vectors without NUL bytes, and says precisely
//! what is wrong where that is not possible. It also holds the vocabulary that the other Reaper
//! crates share: [`ExitStatus`], [`Status`] and its transition table, [`ProcessIdentity`], and the
//! node's [`Config`].
//!
//! Beyond reading a bundle's `config.json` and the node's configuration file it performs no I/O.
#![forbid(unsafe_code)]

mod annotations;
mod cgroups_path;
mod config;
mod exit;
mod id;
mod identity;
mod process;
mod status;
mod timestamp;
mod workload;

pub use annotations::{ContainerType, CriAnnotations};
pub use cgroups_path::CgroupsPath;
pub use config::{
    AnnotationPolicy, Config, DnsMode, ImageMode, LogConfig, MaskConfig, NetworkMode, OverlayConfig,
    OverlayScope, StoreKind,
};
pub use exit::{Exit, ExitStatus};
pub use id::{ContainerId, ExecId, IdError, MAX_ID_LENGTH};
pub use identity::ProcessIdentity;
pub use process::{ConsoleSize, ProcessSpec, Resource, Rlimit, User};
pub use status::{InvalidTransition, Status, Transition};
pub use timestamp::Timestamp;
pub use workload::{Mount, Workload};

/// The OCI runtime-spec types that [`Workload`] is read from, re-exported so that consumers use
/// the same version.
pub use oci_spec::runtime as oci;

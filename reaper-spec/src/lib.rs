#![doc = include_str!("../README.md")]
//!
//! # Where to look
//! * A bundle on disk is a [`Bundle`], what it asks for a [`ContainerSpec`] with its [`ProcessSpec`].
//! * A single process, as `exec` gets it, is read by [`ProcessSpec::parse`].
//! * Ids that come from outside become a [`ContainerId`] or an [`ExecId`] before they are used.
//! * What a container is doing is a [`Status`] with its transition table; how a process ended is
//!   an [`ExitStatus`]; which process it was is a [`ProcessIdentity`].
//! * The node's settings are a [`Config`]; what a pod may change of them is a [`PodAnnotation`].
//! * All that can be wrong is an [`Error`].
//!
//! Beyond reading a bundle's `config.json` and the node's configuration file this crate performs
//! no I/O.
#![forbid(unsafe_code)]

mod annotations;
mod bundle;
mod cgroups_path;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod container_spec;
mod error;
mod exit;
mod file;
mod hooks;
mod id;
mod identity;
mod json;
mod namespaces;
mod overlay_scope;
mod path_hash;
mod policy;
mod process;
mod resources;
mod seccomp;
mod status;
mod timestamp;

pub use annotations::{ContainerType, CriAnnotations};
pub use bundle::Bundle;
pub use cgroups_path::{CgroupsPath, CgroupsPathError};
pub use config::{
    AnnotationPolicy, CgroupMode, Config, DEFAULT_CONFIG_FILE, DeviceMode, DnsMode, HookMode,
    ImageMode, LogConfig, MaskConfig, MonitorCgroupMode, NetworkMode, OverlayConfig, PidMode,
    PodAnnotation, RetentionConfig, SettingSource, StoreKind,
};
pub use container_spec::{
    ContainerSpec, Device, DeviceType, FileRestrictions, Mount, RootPropagation, Unsupported,
    is_engines_sysctl,
};
pub use error::{Error, Invalid, Origin, Rule};
pub use exit::{Exit, ExitStatus};
pub use file::MAX_CONFIG_SIZE;
pub use hooks::{Hook, HookKind, Hooks};
pub use id::{ContainerId, ExecId, IdError, MAX_ID_LENGTH};
pub use identity::ProcessIdentity;
pub use namespaces::{NamespaceKind, NamespacePath};
pub use overlay_scope::{OverlayScope, ScopeError};
pub use path_hash::{DEFAULT_STATE_ROOT, path_hash};
pub use policy::{
    AllowedMounts, ContainerLimit, HostPath, IdRange, ParsePolicyError, PolicyConfig, PolicyRules,
    PolicySource, Privileges, RlimitCeiling,
};
pub use process::{
    Capabilities, ConsoleSize, CpuAffinity, IoClass, IoPriority, ProcessSpec, Resource, Rlimit,
    Scheduler, SchedulerFlag, SchedulerPolicy, Scheduling, SecurityLabels, UnknownResource, User,
};
pub use resources::{
    BlockIoResources, CpuResources, DeviceRule, HugepageLimit, InterfacePriority, MemoryResources,
    NetworkResources, PidsResources, RdmaLimit, Resources, ThrottleDevice, WeightDevice,
};
pub use seccomp::{
    Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompFlag, SeccompOp, SeccompRule,
};
pub use status::{InvalidTransition, Status, Transition};
pub use timestamp::Timestamp;

/// The OCI runtime-spec types of [`Bundle::spec`], re-exported so that consumers use the same version.
#[cfg(feature = "oci-spec")]
pub use oci_spec::runtime as oci;

/// The version of the OCI runtime-spec that bundles are read by, and that is said of containers.
pub const OCI_VERSION: &str = "1.1.0";

/// Whether serde leaves a value out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod assemble;
mod base;
mod configured;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod entrance;
#[cfg(feature = "fake")]
mod fake;
mod host_root;
mod image;
mod layering;
mod layers;
mod linux;
mod live;
mod masks;
mod membership;
mod mounts;
mod overlayfs;
mod overlays;
mod pin;
mod plan;
mod read_only;
mod rootfs;
mod rootless;
mod session;
mod shared;
mod shared_view;
mod stamps;
mod store;
mod trash;
mod volumes;

pub use configured::Configured;
pub use contract::{
    Error, FilesystemIsolation, Housekeeping, Obstacle, RootfsMount, Scope, View, ViewRequest,
    user_directory,
};
#[cfg(feature = "mock")]
pub use contract::{MockFilesystemIsolation, MockView};
#[cfg(feature = "fake")]
pub use fake::{Call as FakeCall, FakeIsolation};
pub use host_root::HostRoot;
pub use linux::mountinfo;
pub use masks::DEFAULT_MASKS;
pub use overlays::{
    Change, ChangeKind, CommitMode, Entry, FileKind, Keep, OnProgress, Overlays, Progress,
    ScopeInfo, Usage,
};
pub use read_only::ReadOnlyHost;
pub use rootfs::{mount_rootfs, unmount_rootfs};
pub use session::{Session, run_in};
pub use shared::SharedOverlay;

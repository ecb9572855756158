#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod configured;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
#[cfg(feature = "fake")]
mod fake;
mod host_root;
mod isolation;
mod linux;
mod mount;
mod overlays;
mod read_only;
mod rootless;
mod scope;
mod session;
mod shared;
mod shared_view;
mod store;
mod volume;

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
pub use mount::{mount_rootfs, unmount_rootfs};
pub use overlays::{
    Change, ChangeKind, CommitMode, Entry, FileKind, Keep, OnProgress, Overlays, Progress,
    ScopeInfo, Usage,
};
pub use read_only::ReadOnlyHost;
pub use scope::DEFAULT_MASKS;
pub use session::{Session, run_in};
pub use shared::SharedOverlay;

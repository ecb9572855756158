#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod contract;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod isolation;
mod linux;
mod manage;
mod mount;
mod scope;
mod store;
#[cfg(any(feature = "conformance", feature = "fake"))]
mod testing;
mod volume;

pub use contract::{
    Error, FilesystemIsolation, GarbageCollection, RootfsMount, RootlessError, Scope, View,
    ViewRequest, user_directory,
};
#[cfg(feature = "mock")]
pub use contract::{MockFilesystemIsolation, MockView};
pub use isolation::{
    Configured, HostFilesystem, ReadOnlyHost, Session, SharedOverlay, enter_empty_root, run_in,
};
pub use linux::{mountinfo, resolve::in_view};
pub use manage::{
    ApplyMode, Change, ChangeKind, Exported, FileKind, FileMetadata, Flaw, FlawReason, Leftover,
    OnProgress, Overlays, Progress, Recovery, Usage, find_leftovers, remove_leftover,
};
pub use mount::{BundleMirror, RuntimeRoot, make_read_only, mount_rootfs, unmount_rootfs};
pub use scope::{DEFAULT_MASKS, Keep, ScopeInfo};
pub use store::Unmounted;
#[cfg(feature = "conformance")]
pub use testing::conformance;
#[cfg(feature = "fake")]
pub use testing::{FakeCall, FakeIsolation};

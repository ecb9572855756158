//! What the monitor calls: the isolations and their views.

mod configured;
mod empty_root;
mod host_root;
mod overlay_view;
mod place_volumes;
mod read_only;
mod restrictions;
mod session;
mod shared_overlay;

pub use configured::Configured;
pub use empty_root::enter_empty_root;
pub use host_root::HostFilesystem;
pub use read_only::ReadOnlyHost;
pub use session::{Session, run_in};
pub use shared_overlay::SharedOverlay;

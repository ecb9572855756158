//! What the monitor calls: the isolations and their views.

mod configured;
mod host_root;
mod overlay_view;
mod overlay_view_as_user;
mod place_volumes;
mod read_only;
mod session;
mod shared_overlay;
mod shared_overlay_as_user;

pub use configured::Configured;
pub use host_root::HostRoot;
pub use read_only::ReadOnlyHost;
pub use session::{Session, run_in};
pub use shared_overlay::SharedOverlay;

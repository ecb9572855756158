//! What people call: listing, comparing, exporting and undoing what was written over the host.

mod change;
mod commit;
mod compare;
mod diff;
mod export;
mod leftovers;
mod overlays;
mod progress;

pub use change::{Change, ChangeKind, Entry, FileKind};
pub use commit::ApplyMode;
pub use leftovers::{Leftover, find_leftovers, remove_leftover};
pub use overlays::Overlays;
pub use progress::{OnProgress, Progress, Usage};

//! What people call: listing, comparing, exporting and undoing what was written over the host.

mod change;
mod commit;
mod compare;
mod diff;
mod export;
mod journal;
mod leftovers;
mod name;
mod overlays;
mod pax;
mod progress;
mod sparse;
mod stage;
mod tar_entry;
mod unchanged;

pub use change::{Change, ChangeKind, FileKind, FileMetadata};
pub use commit::{ApplyMode, Recovery};
pub use export::{Exported, Flaw, FlawReason};
#[cfg(feature = "fuzzing")]
pub(crate) use export::{archive_name, whiteout_name};
#[cfg(feature = "fuzzing")]
pub(crate) use journal::Journal;
pub use leftovers::{Leftover, find_leftovers, remove_leftover};
pub use overlays::Overlays;
pub use progress::{OnProgress, Progress, Usage};

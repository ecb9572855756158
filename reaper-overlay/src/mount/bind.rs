//! Bind mounts.

use std::path::Path;

use rustix::mount::{mount_bind, mount_bind_recursive};

use super::interface::Recursion;

/// Shows `from` at `to` as well.
pub(crate) fn bind(from: &Path, to: &Path, recursion: Recursion) -> rustix::io::Result<()> {
    match recursion {
        Recursion::Alone => mount_bind(from, to),
        Recursion::All => mount_bind_recursive(from, to),
    }
}

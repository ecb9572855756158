//! What a scope is made like.

use std::path::PathBuf;

use reaper_spec::MaskConfig;

use crate::mount::image::Image;

/// What a scope is made like, if it has to be made.
#[derive(Debug, Clone)]
pub(crate) struct ScopeOptions<'a> {
    pub(crate) masks: &'a MaskConfig,
    /// Bound from the host, besides its usual trees.
    pub(crate) host_paths: &'a [PathBuf],
    /// The mounts that need not be protected.
    pub(crate) unprotected: &'a [PathBuf],
    /// The most that it may hold, in bytes.
    pub(crate) size: Option<u64>,
    /// Shown beneath the host's root.
    pub(crate) image: Option<Image>,
}

//! How far an operation is.

use std::path::Path;

/// How much a scope holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The files, directories and marks.
    pub files: u64,
    /// The space they take, in bytes.
    pub bytes: u64,
}

/// How far something is that takes long.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The files that are done.
    pub files: u64,
    /// Their content, in bytes.
    pub bytes: u64,
    /// The file that comes next.
    pub path: &'a Path,
}

/// Where progress is reported to. It is called for every file.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress<'_>);

//! The changes that a plan is made of, each of which is done as a whole or not at all.

use std::path::PathBuf;

/// The mode of a new file that everyone may read.
pub(super) const PUBLIC: u32 = 0o644;
/// The mode of a file of which only the node's administrator is to know.
pub(super) const PRIVATE: u32 = 0o600;

/// One change of the node's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    MakeFolder(PathBuf),
    /// Replaces the file. It has the owner and the mode of `like` if that is there, and else `mode`.
    Write {
        path: PathBuf,
        text: String,
        like: Option<PathBuf>,
        mode: u32,
        over: Over,
    },
    /// Replaces the program by a copy of the file `from`.
    Program {
        path: PathBuf,
        from: PathBuf,
    },
    Remove(PathBuf),
    /// Removes it if it is empty.
    RemoveFolder(PathBuf),
}

/// What a text may replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Over {
    Anything,
    /// Only what it was made from.
    Only(Option<String>),
}

//! What is different between a scope and the host.

use std::{
    fmt,
    fs::{self, Metadata},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

use crate::{
    contract::{Context, Error},
    linux::walk,
};

/// The largest file whose text is compared line by line.
const MAX_TEXT: u64 = 1 << 20;

/// One difference between a scope and the host.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The path, the same on the host and in the view.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// What kind of difference.
    pub kind: ChangeKind,
    /// What the host has.
    pub before: Option<Entry>,
    /// What the scope has.
    pub after: Option<Entry>,
    /// Whether the host's is hidden from the scope, so that `before` is not the whole truth.
    pub masked: bool,
    #[serde(skip)]
    pub(crate) lower: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) upper: Option<PathBuf>,
}

/// A kind of difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChangeKind {
    /// The host has nothing there.
    Added,
    /// The content, the target of a link or the device number.
    Modified,
    /// It is gone.
    Deleted,
    /// A file became a directory, or the like.
    Type,
    /// The mode, the owner or extended attributes alone.
    Attributes,
}

/// What there is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// Its type.
    pub kind: FileKind,
    /// The permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The size in bytes.
    pub size: u64,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Block,
    /// A character device.
    Character,
    /// A FIFO.
    Fifo,
    /// A unix socket.
    Socket,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.path.display())
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "A",
            Self::Modified => "M",
            Self::Deleted => "D",
            Self::Type => "T",
            Self::Attributes => "P",
        })
    }
}

impl Change {
    /// The change of content as a unified diff, if both sides are text of at most 1 MiB or absent.
    ///
    /// # Errors
    /// A side cannot be read.
    pub fn text(&self) -> Result<Option<String>, Error> {
        let (Some(before), Some(after)) =
            (text(self.lower.as_deref())?, text(self.upper.as_deref())?)
        else {
            return Ok(None);
        };
        if before == after {
            return Ok(None);
        }
        let name = self.path.display().to_string();
        let header = |side: Option<Entry>, with: &str| {
            if side.is_some() {
                format!("{with}{name}")
            } else {
                "/dev/null".to_owned()
            }
        };
        let diff = similar::TextDiff::from_lines(&before, &after);
        let mut unified = diff.unified_diff();
        unified.header(&header(self.before, "a"), &header(self.after, "b"));
        Ok(Some(unified.to_string()))
    }
}

/// The text of a file; an absent one is empty, and `None` is what is no text.
fn text(path: Option<&Path>) -> Result<Option<String>, Error> {
    let Some(path) = path else {
        return Ok(Some(String::new()));
    };
    let Some(metadata) = walk::look(path)? else {
        return Ok(Some(String::new()));
    };
    if !metadata.is_file() || metadata.len() > MAX_TEXT {
        return Ok(None);
    }
    let content = fs::read(path).context("read", path)?;
    let text = String::from_utf8(content).ok();
    Ok(text.filter(|text| !text.contains('\0')))
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

impl Entry {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        let kind = match () {
            () if kind.is_dir() => FileKind::Directory,
            () if kind.is_symlink() => FileKind::Symlink,
            () if kind.is_block_device() => FileKind::Block,
            () if kind.is_char_device() => FileKind::Character,
            () if kind.is_fifo() => FileKind::Fifo,
            () if kind.is_socket() => FileKind::Socket,
            () => FileKind::File,
        };
        Self {
            kind,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            size: metadata.len(),
        }
    }
}

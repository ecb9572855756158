//! What is different between a scope and the host.

use std::{
    fmt,
    fs::Metadata,
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, Serializer};

use super::name::shown;
use crate::{
    contract::{Context, Error},
    linux::{handle::Handle, resolve::without_links, walk::Cursor},
    store::layer_table::Layer,
};

/// The largest file whose text is compared line by line.
const MAX_TEXT: u64 = 1 << 20;

/// One difference between a scope and the host.
///
/// As JSON a path that is not UTF-8 has `\\xNN` for each byte that is none, and all its bytes are
/// in `path_bytes` then.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Change {
    /// The path, the same on the host and in the view.
    pub path: PathBuf,
    /// What kind of difference.
    pub kind: ChangeKind,
    /// What the host has.
    pub before: Option<FileMetadata>,
    /// What the scope has.
    pub after: Option<FileMetadata>,
    /// Whether the host's is hidden from the scope, so that `before` is not the whole truth.
    pub masked: bool,
    /// The layer in which it was found.
    pub(super) layer: Arc<Layer>,
    /// Where what is before comes from.
    pub(super) lower: Lower,
    /// What the two files were when they were compared.
    pub(super) stamps: [Option<Stamp>; 2],
}

/// Where the view takes from what the upper layer of a scope does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lower {
    Host,
    Mask,
    Nothing,
}

/// What a change of a file changes: the file itself, its length, or its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether it is of the same file, whatever changed in it.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            path: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            path_bytes: Option<&'a [u8]>,
            kind: ChangeKind,
            before: Option<FileMetadata>,
            after: Option<FileMetadata>,
            masked: bool,
        }
        let bytes = self.path.as_os_str().as_encoded_bytes();
        let change = Shown {
            path: shown(&self.path),
            path_bytes: self.path.to_str().is_none().then_some(bytes),
            kind: self.kind,
            before: self.before,
            after: self.after,
            masked: self.masked,
        };
        change.serialize(serializer)
    }
}

/// A file is no longer what was compared.
pub(super) fn changed(path: &Path) -> Error {
    Error::Changed {
        path: path.to_owned(),
    }
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
    #[serde(rename = "type")]
    TypeChanged,
    /// The mode, the owner or extended attributes alone.
    #[serde(rename = "attributes")]
    AttributesChanged,
}

/// What there is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileMetadata {
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
        write!(f, "{} {}", self.kind, shown(&self.path))
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "A",
            Self::Modified => "M",
            Self::Deleted => "D",
            Self::TypeChanged => "T",
            Self::AttributesChanged => "P",
        })
    }
}

impl Change {
    /// The change of content as a unified diff, if both sides are text of at most 1 MiB or absent.
    ///
    /// # Errors
    /// A side cannot be read.
    pub fn text(&self) -> Result<Option<String>, Error> {
        let (Some(before), Some(after)) = (text(self.lower()?)?, text(self.upper()?)?) else {
            return Ok(None);
        };
        if before == after {
            return Ok(None);
        }
        let name = shown(&self.path);
        let header = |side: Option<FileMetadata>, with: &str| {
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

impl Change {
    /// The path below the mount of its layer.
    pub(super) fn relative(&self) -> &Path {
        self.path
            .strip_prefix(&self.layer.mount)
            .unwrap_or(&self.path)
    }

    fn lower(&self) -> Result<Option<Handle>, Error> {
        let root = match self.lower {
            Lower::Host => without_links(&self.layer.mount)?,
            Lower::Mask => Handle::of(&self.layer.mask)?,
            Lower::Nothing => None,
        };
        self.below(root)
    }

    fn upper(&self) -> Result<Option<Handle>, Error> {
        match self.after {
            Some(_) => self.below(Handle::of(&self.layer.upper)?),
            None => Ok(None),
        }
    }

    fn below(&self, root: Option<Handle>) -> Result<Option<Handle>, Error> {
        match root {
            Some(root) => Cursor::new(root).find(self.relative()),
            None => Ok(None),
        }
    }
}

/// The text of a file; an absent one is empty, and `None` is anything but text.
fn text(file: Option<Handle>) -> Result<Option<String>, Error> {
    let Some(file) = file else {
        return Ok(Some(String::new()));
    };
    if !file.metadata().is_file() || file.metadata().len() > MAX_TEXT {
        return Ok(None);
    }
    let mut content = Vec::new();
    let opened = file.open().with_context("open", || file.path())?;
    // It may grow meanwhile.
    let mut opened = opened.take(MAX_TEXT + 1);
    opened
        .read_to_end(&mut content)
        .with_context("read", || file.path())?;
    let text = String::from_utf8(content).ok();
    Ok(text.filter(|text| text.len() as u64 <= MAX_TEXT && !text.contains('\0')))
}

impl FileMetadata {
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

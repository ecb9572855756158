//! Comparing the layers of a scope with the host.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, Metadata},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

use super::{
    OnProgress, Progress,
    compare::{same_attributes, same_content},
};
use crate::{
    contract::{Context, Error},
    linux::{file_attributes, walk},
    store::layer_table::Layer,
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

/// What lies below the upper layer at one path.
#[derive(Debug, Clone, Default)]
struct Lower {
    host: Option<PathBuf>,
    mask: Option<PathBuf>,
    /// Whether the host's is hidden here.
    masked: bool,
    /// Whether the upper layer shows nothing of what lies below: it or a directory above it is
    /// opaque. Overlayfs marks the topmost one alone.
    replaced: bool,
}

impl Lower {
    /// What lies below at the entry `name`.
    fn child(&self, name: &OsStr) -> Result<Self, Error> {
        let host = self.host.as_ref().map(|dir| dir.join(name));
        let mask = self.mask.as_ref().map(|dir| dir.join(name));
        let masked = Self {
            host: None,
            mask: None,
            masked: true,
            replaced: self.replaced,
        };
        if let Some(mask) = mask
            && let Some(metadata) = walk::look(&mask)?
        {
            if file_attributes::is_whiteout(&metadata) {
                return Ok(masked);
            }
            if !metadata.is_dir() || file_attributes::is_opaque(&mask)? {
                return Ok(Self {
                    mask: Some(mask),
                    ..masked
                });
            }
            return Ok(Self {
                host,
                mask: Some(mask),
                masked: self.masked,
                replaced: self.replaced,
            });
        }
        let host = match host {
            Some(path) => walk::look(&path)?.map(|_| path),
            None => None,
        };
        Ok(Self {
            host,
            mask: None,
            masked: self.masked,
            replaced: self.replaced,
        })
    }

    /// The file that the view shows without an upper layer.
    fn shown(&self) -> Option<&PathBuf> {
        self.host.as_ref().or(self.mask.as_ref())
    }

    /// Nothing, in a directory that hides what is below.
    fn nothing(&self) -> Self {
        Self {
            masked: self.masked,
            ..Self::default()
        }
    }
}

struct Diff<'a> {
    layers: &'a [Layer],
    changes: Vec<Change>,
    files: u64,
    bytes: u64,
}

pub(crate) fn diff(layers: &[Layer], on_progress: OnProgress<'_>) -> Result<Vec<Change>, Error> {
    let mut diff = Diff {
        layers,
        changes: Vec::new(),
        files: 0,
        bytes: 0,
    };
    for layer in layers {
        let mask = layer.mask.exists().then(|| layer.mask.clone());
        let lower = Lower {
            host: Some(layer.mount.clone()),
            mask,
            ..Lower::default()
        };
        // An own stack: the depth is up to workloads.
        let mut todo = vec![(layer.upper.clone(), layer.mount.clone(), lower)];
        while let Some((dir, path, lower)) = todo.pop() {
            for upper in walk::children(&dir)? {
                let name = upper.file_name().unwrap_or_default();
                let path = path.join(name);
                diff.files += 1;
                on_progress(Progress {
                    files: diff.files,
                    bytes: diff.bytes,
                    path: &path,
                });
                let lower = lower.child(name)?;
                if let Some(lower) = diff.compare(&upper, &path, lower)? {
                    todo.push((upper, path, lower));
                }
            }
        }
    }
    diff.changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(diff.changes)
}

impl Diff<'_> {
    /// Compares one entry. If it is a directory, what its entries are to be compared with.
    fn compare(
        &mut self,
        upper: &Path,
        path: &Path,
        mut lower: Lower,
    ) -> Result<Option<Lower>, Error> {
        // Another filesystem is mounted there: its layer says what changed.
        if self.layers.iter().any(|layer| layer.mount == path) {
            return Ok(None);
        }
        let Some(after) = walk::look(upper)? else {
            return Ok(None);
        };
        let below = lower.shown().cloned();
        let before = match &below {
            Some(below) => walk::look(below)?,
            None => None,
        };
        if file_attributes::is_whiteout(&after) {
            if let Some(before) = before {
                self.add(ChangeKind::Deleted, path, &lower, Some(&before), None);
            }
            return Ok(None);
        }
        self.bytes += after.len();
        let sides = (before.as_ref(), Some((upper, &after)));
        let Some(before) = before.as_ref() else {
            // The host's, which this one stands for, has gone.
            if file_attributes::is_made(upper, &after)? {
                return Ok(Some(lower.nothing()));
            }
            self.add(ChangeKind::Added, path, &lower, sides.0, sides.1);
            return Ok(after.is_dir().then(|| lower.nothing()));
        };
        if before.file_type() != after.file_type() {
            self.add(ChangeKind::Type, path, &lower, sides.0, sides.1);
            return Ok(after.is_dir().then(|| lower.nothing()));
        }
        let below = below.unwrap_or_default();
        if !same_content(&below, before, upper, &after)? {
            self.add(ChangeKind::Modified, path, &lower, sides.0, sides.1);
        } else if !same_attributes(&below, before, upper, &after)? {
            self.add(ChangeKind::Attributes, path, &lower, sides.0, sides.1);
        }
        if !after.is_dir() {
            return Ok(None);
        }
        lower.replaced = lower.replaced || file_attributes::is_opaque(upper)?;
        if lower.replaced {
            self.deleted_behind(upper, path, &lower)?;
        }
        Ok(Some(lower))
    }

    /// What an opaque directory hides and has not made anew is deleted.
    fn deleted_behind(&mut self, upper: &Path, path: &Path, lower: &Lower) -> Result<(), Error> {
        let Some(host) = &lower.host else {
            return Ok(());
        };
        for child in walk::children(host)? {
            let name = child.file_name().unwrap_or_default();
            let below = lower.child(name)?;
            if walk::look(&upper.join(name))?.is_some() {
                continue;
            }
            if let Some(shown) = below.shown()
                && let Some(before) = walk::look(shown)?
            {
                self.add(
                    ChangeKind::Deleted,
                    &path.join(name),
                    &below,
                    Some(&before),
                    None,
                );
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        kind: ChangeKind,
        path: &Path,
        lower: &Lower,
        before: Option<&Metadata>,
        after: Option<(&Path, &Metadata)>,
    ) {
        self.changes.push(Change {
            path: path.to_owned(),
            kind,
            before: before.map(Entry::of),
            after: after.map(|(_, metadata)| Entry::of(metadata)),
            masked: lower.masked,
            lower: lower.shown().cloned(),
            upper: after.map(|(upper, _)| upper.to_owned()),
        });
    }
}

impl Entry {
    fn of(metadata: &Metadata) -> Self {
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

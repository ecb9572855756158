//! The changes of a scope as a tar archive.

use std::{
    collections::HashMap,
    fmt,
    fs::Metadata,
    io::{self, Read, Seek, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use serde::Serialize;
use tar::{Builder, EntryType, Header};

use super::{
    compare::same_attributes,
    name::shown,
    pax::Records,
    progress::{OnProgress, Progress},
    sparse::extents,
    tar_entry::{Entry, Parts},
};
use crate::{
    contract::{Context, Error},
    linux::{
        file_attributes::{is_opaque, is_placeholder_dir, is_whiteout, xattrs},
        handle::{FileId, Handle},
        resolve::without_links,
        walk::{Cursor, Visitor, joined, walk},
    },
    store::layer_table::Layer,
};

/// What the name of an entry that stands for a deleted file begins with.
const WHITEOUT: &[u8] = b".wh.";

/// The name of a file in an archive. `None` where it would be taken for a whiteout.
pub(crate) fn archive_name(path: &Path) -> Option<Vec<u8>> {
    let name = path.as_os_str().as_bytes();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let last = path.file_name().unwrap_or_default();
    (!last.as_bytes().starts_with(WHITEOUT)).then(|| name.to_vec())
}

/// The name in an archive that says that there is no file of this path.
pub(crate) fn whiteout_name(path: &Path) -> Vec<u8> {
    let name = path.as_os_str().as_bytes();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let last = path.file_name().unwrap_or_default().as_bytes();
    let folder = &name[..name.len() - last.len()];
    [folder, WHITEOUT, last].concat()
}

/// An archive, and what is not in it as it is in the scope.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exported<W> {
    /// What the archive was written to.
    pub out: W,
    /// The files that are missing in the archive, or not as they were at one time.
    pub flaws: Vec<Flaw>,
}

/// A file that an archive lacks, or has not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flaw {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub reason: FlawReason,
}

/// Why an archive lacks a file, or has it not as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FlawReason {
    /// A unix socket: the format has no entry for it.
    Socket,
    /// Its name would mean that another file was deleted.
    Name,
    /// A container changed it, or moved a directory above it, while it was read.
    Changed,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = shown(&self.path);
        match self.reason {
            FlawReason::Socket => write!(f, "{path} is not in the archive: it is a socket"),
            FlawReason::Name => write!(
                f,
                "{path} is not in the archive: there a name that begins with .wh. means a deleted file"
            ),
            FlawReason::Changed => write!(
                f,
                "{path} changed while it was archived: export it again when no container writes to it"
            ),
        }
    }
}

pub(crate) fn export<W: Write>(
    layers: &[Layer],
    mount_points: &[PathBuf],
    out: W,
    on_progress: OnProgress<'_>,
) -> Result<Exported<W>, Error> {
    let mut archive = Archive {
        tar: Builder::new(out),
        links: HashMap::new(),
        flaws: Vec::new(),
        root: PathBuf::new(),
        host: None,
        mount_points,
        on_progress,
        files: 0,
        bytes: 0,
    };
    for layer in layers {
        let Some(upper) = Handle::of(&layer.upper)? else {
            continue;
        };
        layer.mount.clone_into(&mut archive.root);
        // The layer's own directory is the mount's root in the view.
        let host = without_links(&layer.mount)?.filter(Handle::is_dir);
        let is_changed = match &host {
            Some(host) => !same_attributes(host, &upper)?,
            None => false,
        };
        archive.host = host.map(Cursor::new);
        if is_changed {
            archive.visit(Path::new(""), &upper)?;
        }
        walk(upper, &mut archive)?;
    }
    let Archive { tar, flaws, .. } = archive;
    let out = tar
        .into_inner()
        .context("write the end of", "the archive")?;
    Ok(Exported { out, flaws })
}

struct Archive<'a, 'b, W: Write> {
    tar: Builder<W>,
    /// The first name of each file that has several.
    links: HashMap<FileId, Vec<u8>>,
    flaws: Vec<Flaw>,
    /// Where the layer of the walk is mounted.
    root: PathBuf,
    /// The host's directories there.
    host: Option<Cursor>,
    /// Those that were made for volumes, and are left out.
    mount_points: &'a [PathBuf],
    on_progress: OnProgress<'b>,
    files: u64,
    bytes: u64,
}

impl<W: Write> Visitor for Archive<'_, '_, W> {
    fn visit(&mut self, path: &Path, file: &Handle) -> Result<bool, Error> {
        if is_placeholder_dir(file)? {
            return Ok(true);
        }
        let full = joined(&self.root, path);
        (self.on_progress)(Progress {
            files: self.files,
            bytes: self.bytes,
            path: &full,
        });
        self.files += 1;
        if file.metadata().is_file() {
            self.bytes += file.metadata().len();
        }
        if self.is_bare_mount_point(&full, file)? {
            return Ok(true);
        }
        self.append(&full, file)
    }

    fn lost(&mut self, path: &Path) -> Result<(), Error> {
        self.omit(&joined(&self.root, path), FlawReason::Changed);
        Ok(())
    }
}

impl<W: Write> Archive<'_, '_, W> {
    /// Whether this was made to mount a volume on, and holds nothing else.
    fn is_bare_mount_point(&self, full: &Path, file: &Handle) -> Result<bool, Error> {
        if !self.mount_points.iter().any(|point| point == full) {
            return Ok(false);
        }
        if !file.is_dir() {
            return Ok(file.metadata().len() == 0);
        }
        let names = file.names().context("list", full)?;
        let is_point = |name| self.mount_points.contains(&full.join(name));
        Ok(names.iter().all(is_point))
    }

    fn omit(&mut self, path: &Path, reason: FlawReason) {
        self.flaws.push(Flaw {
            path: path.to_owned(),
            reason,
        });
    }

    /// Appends one file. False if what is in it is not to be appended either.
    fn append(&mut self, full: &Path, file: &Handle) -> Result<bool, Error> {
        let metadata = file.metadata();
        if is_whiteout(metadata) {
            self.mark(whiteout_name(full))?;
            return Ok(false);
        }
        let Some(mut name) = archive_name(full) else {
            self.omit(full, FlawReason::Name);
            return Ok(false);
        };
        let kind = metadata.file_type();
        if kind.is_socket() {
            self.omit(full, FlawReason::Socket);
            return Ok(false);
        }
        if kind.is_dir() {
            if name.is_empty() {
                name.push(b'.');
            }
            name.push(b'/');
        }
        let mut entry = Entry::of(name, metadata);
        if !metadata.is_dir() && metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&file.id()) {
                entry.header.set_entry_type(EntryType::Link);
                entry.target = Some(first.clone());
                entry.write(&mut self.tar, io::empty(), 0)?;
                return Ok(true);
            }
            self.links.insert(file.id(), entry.name.clone());
        }
        entry.records.add_xattrs(&xattrs(file)?);
        if kind.is_file() {
            return self.append_file(full, file, entry).map(|()| true);
        }
        entry.header.set_entry_type(match () {
            () if kind.is_dir() => EntryType::Directory,
            () if kind.is_symlink() => EntryType::Symlink,
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_block_device() => EntryType::Block,
            () => EntryType::Char,
        });
        if kind.is_symlink() {
            let target = file.target()?.into_os_string();
            entry.target = Some(target.as_bytes().to_vec());
        } else if !kind.is_dir() {
            let number = metadata.rdev();
            let set = entry
                .header
                .set_device_major(rustix::fs::major(number))
                .and_then(|()| {
                    let minor = rustix::fs::minor(number);
                    entry.header.set_device_minor(minor)
                });
            set.context("archive", full)?;
        }
        let mut opaque = entry.name.clone();
        entry.write(&mut self.tar, io::empty(), 0)?;
        // Old kernels mark each new directory, also where there is none to hide.
        if kind.is_dir() && is_opaque(file)? && self.host_has_directory(full)? {
            opaque.extend(b".wh..wh..opq");
            self.mark(opaque)?;
        }
        Ok(true)
    }

    /// Whether `full` is a directory on the host, and no symlink leads there.
    fn host_has_directory(&mut self, full: &Path) -> Result<bool, Error> {
        let relative = full.strip_prefix(&self.root).unwrap_or(full);
        let found = match &mut self.host {
            Some(host) => host.find(relative)?,
            None => None,
        };
        Ok(found.is_some_and(|found| found.is_dir()))
    }

    fn append_file(&mut self, full: &Path, file: &Handle, mut entry: Entry) -> Result<(), Error> {
        let length = file.metadata().len();
        let mut content = file.open().context("open", full)?;
        entry.header.set_entry_type(EntryType::Regular);
        let parts = extents(&content, length).context("look for holes in", full)?;
        let held: u64 = parts.iter().map(|(_, size)| size).sum();
        let read = if held < length {
            let map = entry.make_sparse(&parts, length);
            let size = map.len() as u64 + held;
            let data = Parts {
                file: &mut content,
                parts: parts.into_iter(),
                left: 0,
            };
            entry.write(&mut self.tar, map.as_slice().chain(data), size)
        } else {
            content.rewind().context("read", full)?;
            entry.write(&mut self.tar, &mut content, length)
        }?;
        let now = file.look_again()?;
        let stamp = |metadata: &Metadata| {
            let time = (metadata.mtime(), metadata.mtime_nsec());
            (
                metadata.len(),
                time,
                metadata.ctime(),
                metadata.ctime_nsec(),
            )
        };
        if !read || stamp(&now) != stamp(file.metadata()) {
            self.omit(full, FlawReason::Changed);
        }
        Ok(())
    }

    /// An empty file whose name has a meaning.
    fn mark(&mut self, name: Vec<u8>) -> Result<(), Error> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(0);
        let entry = Entry {
            name,
            target: None,
            header,
            records: Records::default(),
        };
        entry.write(&mut self.tar, io::empty(), 0).map(drop)
    }
}

//! The changes of a scope as a tar archive.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use tar::{Builder, EntryType, Header};

use super::progress::{OnProgress, Progress};
use crate::{
    contract::{Context, Error},
    linux::{file_attributes, walk},
    store::layer_table::Layer,
};

pub(crate) fn export<W: Write>(
    layers: &[Layer],
    out: W,
    on_progress: OnProgress<'_>,
) -> Result<W, Error> {
    let mut archive = Archive {
        tar: Builder::new(out),
        links: HashMap::new(),
    };
    let (mut files, mut bytes) = (0, 0);
    for layer in layers {
        let root = layer
            .mount
            .strip_prefix("/")
            .unwrap_or(&layer.mount)
            .to_owned();
        walk::walk(&layer.upper, &mut |upper, metadata| {
            if file_attributes::is_placeholder_dir(upper, metadata)? {
                return Ok(());
            }
            let relative = upper.strip_prefix(&layer.upper).unwrap_or(upper);
            let name = root.join(relative);
            on_progress(Progress {
                files,
                bytes,
                path: &Path::new("/").join(&name),
            });
            archive.append(upper, &name, metadata)?;
            files += 1;
            bytes += if metadata.is_file() {
                metadata.len()
            } else {
                0
            };
            Ok(())
        })?;
    }
    archive
        .tar
        .into_inner()
        .context("write the end of", "the archive")
}

struct Archive<W: Write> {
    tar: Builder<W>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Archive<W> {
    fn append(&mut self, upper: &Path, name: &Path, metadata: &Metadata) -> Result<(), Error> {
        if file_attributes::is_whiteout(metadata) {
            let mut whiteout = OsString::from(".wh.");
            whiteout.push(name.file_name().unwrap_or_default());
            return self.mark(&name.with_file_name(whiteout));
        }
        let kind = metadata.file_type();
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        header.set_mtime(metadata.mtime().try_into().unwrap_or(0));
        header.set_size(0);
        if !metadata.is_dir() && metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&key) {
                header.set_entry_type(EntryType::Link);
                return self
                    .tar
                    .append_link(&mut header, name, first)
                    .context("archive", upper);
            }
            self.links.insert(key, name.to_owned());
        }
        if kind.is_socket() {
            // An archive has no place for it; it means nothing without its process.
            return Ok(());
        }
        self.append_xattrs(upper)?;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.tar
                .append_data(&mut header, name, io::empty())
                .context("archive", upper)?;
            if file_attributes::is_opaque(upper)? {
                self.mark(&name.join(".wh..wh..opq"))?;
            }
            return Ok(());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(upper).context("read the link", upper)?;
            return self
                .tar
                .append_link(&mut header, name, target)
                .context("archive", upper);
        }
        if kind.is_file() {
            let file = File::open(upper).context("open", upper)?;
            header.set_entry_type(EntryType::Regular);
            // As long as it was when it was looked at, whatever a workload does meanwhile.
            header.set_size(metadata.len());
            let missing = io::repeat(0);
            let content = io::Read::take(io::Read::chain(file, missing), metadata.len());
            return self
                .tar
                .append_data(&mut header, name, content)
                .context("archive", upper);
        }
        header.set_entry_type(match () {
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_block_device() => EntryType::Block,
            () => EntryType::Char,
        });
        let number = metadata.rdev();
        let set = header
            .set_device_major(rustix::fs::major(number))
            .and_then(|()| header.set_device_minor(rustix::fs::minor(number)));
        set.context("archive", upper)?;
        self.tar
            .append_data(&mut header, name, io::empty())
            .context("archive", upper)
    }

    fn append_xattrs(&mut self, upper: &Path) -> Result<(), Error> {
        let xattrs = file_attributes::xattrs(upper)?;
        let named: Vec<(String, &[u8])> = xattrs
            .iter()
            .map(|(name, value)| {
                (
                    format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)),
                    value.as_slice(),
                )
            })
            .collect();
        if named.is_empty() {
            return Ok(());
        }
        let pairs = named.iter().map(|(name, value)| (name.as_str(), *value));
        self.tar
            .append_pax_extensions(pairs)
            .context("archive the attributes of", upper)
    }

    /// An empty file whose name has a meaning.
    fn mark(&mut self, name: &Path) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(0);
        self.tar
            .append_data(&mut header, name, io::empty())
            .context("archive", name)
    }
}

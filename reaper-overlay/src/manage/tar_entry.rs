//! One entry of a tar archive, with an extended header where it needs one.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use tar::{Builder, EntryType, Header};

use super::{pax::Records, sparse::Extent};
use crate::contract::{Context, Error};

/// How many bytes a header and each part of the content fill up.
const BLOCK: u64 = 512;

/// One entry of an archive.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// Of a link.
    pub(super) target: Option<Vec<u8>>,
    pub(super) header: Header,
    pub(super) records: Records,
}

impl Entry {
    pub(super) fn of(name: Vec<u8>, metadata: &Metadata) -> Self {
        let mut header = Header::new_ustar();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        header.set_mtime(metadata.mtime().try_into().unwrap_or(0));
        header.set_size(0);
        let mut records = Records::default();
        records.add_modified(metadata.mtime(), metadata.mtime_nsec());
        Self {
            name,
            target: None,
            header,
            records,
        }
    }

    /// Makes it an entry of the format "PAX 1.0" for sparse files, as GNU tar's manual has it. Returns
    /// what comes in front of the content: the map of its parts.
    pub(super) fn make_sparse(&mut self, parts: &[Extent], length: u64) -> Vec<u8> {
        self.records.add(b"GNU.sparse.major", b"1");
        self.records.add(b"GNU.sparse.minor", b"0");
        self.records.add(b"GNU.sparse.name", &self.name);
        let real = length.to_string();
        self.records.add(b"GNU.sparse.realsize", real.as_bytes());
        let path = Path::new(OsStr::from_bytes(&self.name));
        let dir = path.parent().unwrap_or(Path::new(""));
        let last = path.file_name().unwrap_or_default();
        let name = dir.join("GNUSparseFile.0").join(last).into_os_string();
        self.name = name.as_bytes().to_vec();
        let mut parts = parts.to_vec();
        if parts
            .last()
            .is_none_or(|(start, size)| start + size < length)
        {
            // The hole at the end needs an end.
            parts.push((length, 0));
        }
        let mut map = format!("{}\n", parts.len());
        for (start, size) in parts {
            map.push_str(&format!("{start}\n{size}\n"));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
        map
    }

    /// Writes it with `size` bytes of `content`. False if there were fewer; the rest is zeros then.
    pub(super) fn write<W: Write>(
        mut self,
        tar: &mut Builder<W>,
        content: impl Read,
        size: u64,
    ) -> Result<bool, Error> {
        let path = PathBuf::from(OsStr::from_bytes(&self.name));
        // In the header itself as much as there is room for, for readers that know no extension.
        let old = self.header.as_old_mut();
        if !put(&mut old.name, &self.name) {
            self.records.add(b"path", &self.name);
        }
        if let Some(target) = &self.target
            && !put(&mut old.linkname, target)
        {
            self.records.add(b"linkpath", target);
        }
        if !self.records.is_empty() {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            put(&mut header.as_old_mut().name, b"PaxHeaders.0/entry");
            header.set_size(self.records.as_bytes().len() as u64);
            header.set_cksum();
            tar.append(&header, self.records.as_bytes())
                .context("archive the attributes of", &path)?;
        }
        self.header.set_size(size);
        self.header.set_cksum();
        let mut content = Counted {
            content,
            left: size,
            missing: false,
        };
        tar.append(&self.header, &mut content)
            .context("archive", &path)?;
        Ok(!content.missing)
    }
}

/// Fills a field of a header. False if there was not room for all.
fn put(field: &mut [u8], value: &[u8]) -> bool {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
    length == value.len()
}

/// Exactly as many bytes as the header says, whatever a container does to the file meanwhile.
struct Counted<R> {
    content: R,
    left: u64,
    missing: bool,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..room];
        let mut length = if self.missing {
            0
        } else {
            self.content.read(buffer)?
        };
        if length == 0 && room > 0 {
            self.missing = true;
            buffer.fill(0);
            length = room;
        }
        self.left -= length as u64;
        Ok(length)
    }
}

/// The parts of a file that have content, one after the other.
pub(super) struct Parts<'a> {
    pub(super) file: &'a mut File,
    pub(super) parts: std::vec::IntoIter<Extent>,
    /// How much of the last one is left.
    pub(super) left: u64,
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let Some((start, size)) = self.parts.next() else {
                return Ok(0);
            };
            self.file.seek(SeekFrom::Start(start))?;
            self.left = size;
        }
        let room = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let length = self.file.read(&mut buffer[..room])?;
        self.left -= length as u64;
        Ok(length)
    }
}

//! Whether two files are the same.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use crate::{Error, attributes, error::Context};

/// Whether mode, owner and extended attributes are the same.
pub(super) fn same_attributes(
    a: &Path,
    before: &Metadata,
    b: &Path,
    after: &Metadata,
) -> Result<bool, Error> {
    let key = |metadata: &Metadata| (metadata.mode(), metadata.uid(), metadata.gid());
    Ok(key(before) == key(after) && attributes::xattrs(a)? == attributes::xattrs(b)?)
}

/// Whether two files of one type have the same content, target or device number.
pub(super) fn same_content(
    a: &Path,
    before: &Metadata,
    b: &Path,
    after: &Metadata,
) -> Result<bool, Error> {
    let kind = after.file_type();
    if kind.is_symlink() {
        let target = |path: &Path| fs::read_link(path).context("read the link", path);
        return Ok(target(a)? == target(b)?);
    }
    if kind.is_block_device() || kind.is_char_device() {
        return Ok(before.rdev() == after.rdev());
    }
    if !kind.is_file() {
        return Ok(true);
    }
    if before.len() != after.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (
        File::open(a).context("open", a)?,
        File::open(b).context("open", b)?,
    );
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let length = read_full(&mut one, &mut left).context("read", a)?;
        let other_length = read_full(&mut other, &mut right).context("read", b)?;
        if left[..length] != right[..other_length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

//! Whether two files are the same.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use crate::{
    contract::{Context, Error, user::Privilege},
    linux::file_attributes,
};

/// Whether mode, owner and extended attributes are the same.
pub(crate) fn same_attributes(
    a: &Path,
    before: &Metadata,
    b: &Path,
    after: &Metadata,
) -> Result<bool, Error> {
    // Without root there is one owner in a view, who has replaced what was others', and could give
    // the copies no attributes but those of users: no labels of a security module.
    let is_root = Privilege::of_process() == Privilege::Root;
    let key = |metadata: &Metadata| {
        let owner = is_root.then(|| (metadata.uid(), metadata.gid()));
        (metadata.mode(), owner)
    };
    let xattrs = |path: &Path| {
        let mut found = file_attributes::xattrs(path)?;
        found.retain(|(name, _)| is_root || name.starts_with(b"user."));
        Ok::<_, Error>(found)
    };
    Ok(key(before) == key(after) && xattrs(a)? == xattrs(b)?)
}

/// Whether two files of one type have the same content, target or device number.
pub(crate) fn same_content(
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
    let mut one = match File::open(a) {
        // Who may not read a file can have replaced it all the same.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        other => other.context("open", a)?,
    };
    let mut other = File::open(b).context("open", b)?;
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

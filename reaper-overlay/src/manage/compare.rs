//! Whether two files are the same.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use crate::{
    contract::{Context, Error, user::Privilege},
    linux::{file_attributes, handle::Handle},
};

/// Whether mode, owner and extended attributes are the same.
pub(crate) fn same_attributes(before: &Handle, after: &Handle) -> Result<bool, Error> {
    // Without root there is one owner in a view, who has replaced what was others', and could give
    // the copies no attributes but those of users: no labels of a security module.
    let is_root = Privilege::of_process() == Privilege::Root;
    let key = |metadata: &Metadata| {
        let owner = is_root.then(|| (metadata.uid(), metadata.gid()));
        (metadata.mode(), owner)
    };
    let xattrs = |file: &Handle| {
        let mut found = file_attributes::xattrs(file)?;
        found.retain(|(name, _)| is_root || name.starts_with(b"user."));
        Ok::<_, Error>(found)
    };
    Ok(key(before.metadata()) == key(after.metadata()) && xattrs(before)? == xattrs(after)?)
}

/// Whether two files of one type have the same content, target or device number.
pub(crate) fn same_content(before: &Handle, after: &Handle) -> Result<bool, Error> {
    let kind = after.metadata().file_type();
    if kind.is_symlink() {
        return Ok(before.target()? == after.target()?);
    }
    if kind.is_block_device() || kind.is_char_device() {
        return Ok(before.metadata().rdev() == after.metadata().rdev());
    }
    if !kind.is_file() {
        return Ok(true);
    }
    if before.metadata().len() != after.metadata().len() {
        return Ok(false);
    }
    let mut one = match before.open() {
        // Who may not read a file can have replaced it nevertheless.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        other => other.with_context("open", || before.path())?,
    };
    let mut other = after.open().with_context("open", || after.path())?;
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let length = read_full(&mut one, &mut left).with_context("read", || before.path())?;
        let other_length =
            read_full(&mut other, &mut right).with_context("read", || after.path())?;
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

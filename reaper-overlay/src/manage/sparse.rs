//! Files with holes (lseek(2), `SEEK_DATA`).

use std::{
    fs::File,
    io::{self, Seek, SeekFrom as From, Write},
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

/// A part of a file that has content: its start and its length.
pub(super) type Extent = (u64, u64);

/// The parts of the first `length` bytes of `file` that have content. Where the filesystem knows of
/// no holes that is all.
pub(super) fn extents(file: &File, length: u64) -> io::Result<Vec<Extent>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No more data.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(vec![(0, length)]),
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(length);
        if start >= end {
            break;
        }
        found.push((start, end - start));
        at = end;
    }
    Ok(found)
}

/// Copies `length` bytes of `from` to the new file `to`, which gets the same holes. Returns how many
/// bytes there were: fewer, if the file has become shorter.
pub(super) fn copy(from: &mut File, to: &mut File, length: u64) -> io::Result<u64> {
    for (start, size) in extents(from, length)? {
        from.seek(From::Start(start))?;
        to.seek(From::Start(start))?;
        let copied = io::copy(&mut io::Read::take(&mut *from, size), to)?;
        if copied < size {
            return Ok(start + copied);
        }
    }
    to.flush()?;
    to.set_len(length)?;
    Ok(length)
}

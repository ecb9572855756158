//! Reading a file that another program wrote: its size and its type are not trusted.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::Error;

/// The largest `config.json`, process file or configuration file that is read, in bytes.
///
/// containerd's are 5 to 100 KiB; what the kernel takes as arguments and environment is at most
/// 6 MiB.
pub const MAX_CONFIG_SIZE: u64 = 16 << 20;

/// Reads a regular file of at most [`MAX_CONFIG_SIZE`] bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let too_large = || Error::TooLarge {
        path: path.to_owned(),
        limit: MAX_CONFIG_SIZE,
    };

    // The type is checked before the file is opened: opening a FIFO blocks until it has a writer.
    let metadata = path.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )));
    }
    if metadata.len() > MAX_CONFIG_SIZE {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    let file = File::open(path).map_err(failed)?;
    // It may have grown, and files of /proc have no size at all.
    file.take(MAX_CONFIG_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_CONFIG_SIZE {
        return Err(too_large());
    }
    Ok(bytes)
}

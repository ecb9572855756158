//! The descriptors of a request.

use std::os::fd::OwnedFd;

use crate::{
    io::StdioFds,
    protocol::{Attached, Failure},
};

/// Sorts the descriptors of a message: those of the streams, and those that the process is to keep.
///
/// # Errors
/// There are fewer or more than `attached` says.
pub(crate) fn sort(
    attached: Attached,
    descriptors: Vec<OwnedFd>,
) -> Result<(StdioFds, Vec<OwnedFd>), Failure> {
    let mut descriptors = descriptors.into_iter();
    let mut next = |wanted: bool| if wanted { descriptors.next() } else { None };
    let inherited = attached.inherited.map(&mut next);
    let console_socket = next(attached.console_socket);
    let preserved: Vec<OwnedFd> = descriptors.collect();
    if preserved.len() != attached.preserved as usize {
        let reason = "descriptors are missing from the request".to_owned();
        return Err(Failure::Refused { reason });
    }
    Ok((
        StdioFds {
            inherited,
            console_socket,
        },
        preserved,
    ))
}

//! Loading the filter of system calls.

use std::{
    io::{self, Cursor, Write as _},
    os::fd::{AsRawFd, OwnedFd},
};

use super::step::{Failed, Step as _};
use crate::{channel, seccomp::Filter, sys};

/// Loads the filter. It is in force when this returns, and an agent that it asks has been reached.
///
/// Once it is in force the calls that are made here may be refused, or may wait for the agent, which
/// the monitor reaches only after it has got the listener: until then it takes no more than a
/// write(2), of which no agent may be asked, and no memory is allocated.
pub(super) fn load(filter: &Filter, start_socket: &OwnedFd) -> Result<(), Failed> {
    let mut message = [0; 64];
    let loaded = sys::load_filter(&filter.program, filter.flags);
    let Some(listener) = loaded.step("load the seccomp filter")? else {
        return Ok(());
    };
    let mut text = Cursor::new(&mut message[..]);
    let tag = char::from(channel::INLINE);
    let number = listener.as_raw_fd();
    let written = write!(text, "{tag}{{\"Filtered\":{{\"listener\":{number}}}}}");
    let length = written.map(|()| text.position() as usize);
    let reported = length.and_then(|length| {
        rustix::io::write(start_socket, &message[..length]).map_err(io::Error::from)
    });
    reported.step("report the seccomp filter")?;
    match rustix::io::read(start_socket, &mut message) {
        // The monitor has exited, or could not reach the agent: it has the reason.
        Ok(0) => sys::exit_now(127),
        answered => answered.map(drop).step("wait for the seccomp agent"),
    }
}

//! The monitors' log.

use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use super::config::NAME;

/// Writes a line about the container `id` to the monitors' log, if there is one.
pub(crate) fn log_line(log: Option<&Path>, id: &str, message: &str) {
    let Some(path) = log else {
        return;
    };
    // Opening a FIFO that has no reader would block.
    let file = std::fs::File::options()
        .append(true)
        .create(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    if let Ok(mut file) = file {
        let now = reaper_spec::Timestamp::now();
        let _ = writeln!(file, "{now} {NAME} {id}: {message}");
    }
}

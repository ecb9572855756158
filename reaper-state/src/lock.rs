//! Locks that are waited for, but not for ever.
//!
//! flock(2) has no time limit, and a holder that is stopped holds on. So the lock is asked for again
//! and again, with pauses, and after ten seconds the error names the holder.

use std::{
    fs, io,
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, fstat, major, minor},
    io::Errno,
};

/// How long a lock is waited for. Its holders write a few files, which takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// The first pause, which doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LAST_PAUSE: Duration = Duration::from_millis(5);

/// Locks an open file or folder for this descriptor alone (flock(2)), and waits up to ten seconds
/// until no other descriptor has it locked.
///
/// # Errors
/// `TimedOut`, with the process that holds the lock; those of flock(2).
pub fn lock_exclusive(file: impl AsFd) -> io::Result<()> {
    lock_within(&file, LIMIT)
}

/// The same without waiting: false if another descriptor has it locked.
pub(crate) fn try_lock_exclusive(file: impl AsFd) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn lock_within(file: &impl AsFd, limit: Duration) -> io::Result<()> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if start.elapsed() >= limit => {
                let reason = format!("{} has it locked for more than {limit:?}", holder(file));
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            Err(Errno::WOULDBLOCK) => {
                thread::sleep(pause);
                pause = (pause * 2).min(LAST_PAUSE);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The process that holds the lock, as `/proc/locks` says.
fn holder(file: &impl AsFd) -> String {
    let unknown = || "another process".to_owned();
    let Ok(stat) = fstat(file) else {
        return unknown();
    };
    // The kernel writes the device in hexadecimal.
    let (major, minor) = (major(stat.st_dev), minor(stat.st_dev));
    let named = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // `1: FLOCK ADVISORY WRITE 4711 08:01:131 0 EOF`; one that waits has `->` after the number.
        let (kind, pid, file) = (fields.get(1)?, fields.get(4)?, fields.get(5)?);
        (*kind == "FLOCK" && *file == named).then(|| (*pid).to_owned())
    });
    match pid {
        Some(pid) => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim_end())
        }
        None => unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_lock_is_an_error_that_names_the_process_that_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = || fs::File::open(dir.path()).unwrap();
        let (holder, waiter) = (open(), open());
        lock_exclusive(&holder).unwrap();
        let error = lock_within(&waiter, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let expected = format!("process {} (", std::process::id());
        assert!(error.to_string().starts_with(&expected), "{error}");
        // A process that another test forks has a copy of the descriptor until it executes its program.
        rustix::fs::flock(&holder, FlockOperation::Unlock).unwrap();
        lock_within(&waiter, Duration::ZERO).unwrap();
    }
}

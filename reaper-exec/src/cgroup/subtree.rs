//! What is done to a cgroup and everything below it.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::{fd::AsFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::error::{Error, is_gone};
use crate::{procfs, sys::pidfd_send_signal};

/// How often what is being frozen is killed. Freezing takes effect soon, not at once: some may be forked in
/// the first rounds.
const ROUNDS: usize = 64;

/// How long a process of which the exit is known may stay in its cgroup.
const LEAVING: Duration = Duration::from_secs(2);

/// What freezes and thaws a cgroup of version 2, and what is written to it for that.
const FREEZE: &str = "cgroup.freeze";
const STATES: [&str; 2] = ["1", "0"];

/// The contents of `cgroup.events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Events {
    /// Whether there are processes in the cgroup or below it. Zombies don't count.
    pub populated: bool,
    /// Whether all of them are frozen.
    pub frozen: bool,
}

/// Reads an open `cgroup.events` from its beginning, which also arms poll(2): it reports
/// `POLLPRI` for a change that came after the last read.
///
/// # Errors
/// `ENODEV` once the cgroup is removed.
pub fn read_events(file: &File) -> io::Result<Events> {
    let mut buffer = [0; 256];
    let length = file.read_at(&mut buffer, 0)?;
    Ok(parse_events(&buffer[..length]))
}

pub(super) fn parse_events(text: &[u8]) -> Events {
    let is_set = |key: &[u8]| {
        text.split(|&byte| byte == b'\n').any(|line| {
            line.strip_prefix(key)
                .is_some_and(|value| value.trim_ascii() == b"1")
        })
    };
    Events {
        populated: is_set(b"populated "),
        frozen: is_set(b"frozen "),
    }
}

pub(super) fn events(cgroup: &Path) -> Result<Events, Error> {
    let path = cgroup.join("cgroup.events");
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    Ok(parse_events(&text))
}

/// Whether there are processes. A cgroup that does not exist has none.
pub(super) fn populated(cgroup: &Path) -> Result<bool, Error> {
    match events(cgroup) {
        Ok(events) => Ok(events.populated),
        Err(error) if error.is_gone() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends a signal to every process of the subtree, and returns to which.
pub(super) fn signal(cgroup: &Path, signal: i32) -> Result<HashSet<u32>, Error> {
    let mut reached = HashSet::new();
    for_each(cgroup, &mut |cgroup| {
        signal_own(cgroup, signal, &mut reached)
    })?;
    Ok(reached)
}

fn signal_own(cgroup: &Path, signal: i32, reached: &mut HashSet<u32>) -> Result<(), Error> {
    /// Bounds the open descriptors.
    const BATCH: usize = 128;
    for batch in own_pids(cgroup)?.chunks(BATCH) {
        let mut opened = Vec::with_capacity(batch.len());
        for &pid in batch {
            match procfs::pidfd_of(pid) {
                Ok(pidfd) => opened.push((pid, pidfd)),
                // Ended since it was listed.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(Error::io("open a process of", cgroup)(error)),
            }
        }
        // A pid may have become another's between the list and the open. If it is listed now,
        // then either the descriptor is that member's, or it is that of a process that has
        // ended, to which nothing can be sent.
        let members = own_pids(cgroup)?;
        for (pid, pidfd) in opened {
            if !members.contains(&pid) {
                continue;
            }
            match pidfd_send_signal(pidfd.as_fd(), signal) {
                Ok(()) => drop(reached.insert(pid)),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(Error::io("signal a process of", cgroup)(error)),
            }
        }
    }
    Ok(())
}

/// Kills all processes in the subtree, including those that are forked meanwhile.
pub(super) fn kill(cgroup: &Path) -> Result<(), Error> {
    match write(cgroup, "cgroup.kill", "1") {
        Ok(true) => Ok(()),
        Ok(false) if !cgroup.exists() => Ok(()),
        Ok(false) => kill_one_by_one(cgroup),
        // The workload can have made it threaded, and the kernel kills domains only.
        Err(error) if error.is_threaded() => {
            kill_while_frozen(cgroup, FREEZE, STATES, signal_threads)
        }
        Err(error) => Err(error),
    }
}

/// Sends a signal to the processes that have threads in the subtree, and returns to which threads.
fn signal_threads(cgroup: &Path, signal: i32) -> Result<HashSet<u32>, Error> {
    let threads = |cgroup: &Path| {
        let path = cgroup.join("cgroup.threads");
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    };
    let mut reached = HashSet::new();
    for_each(cgroup, &mut |cgroup| {
        let listed: Vec<u32> = threads(cgroup)?;
        for tid in listed {
            let Some(pidfd) =
                procfs::process_of_thread(tid).and_then(|pid| procfs::pidfd_of(pid).ok())
            else {
                continue;
            };
            // The number may have become another's before the descriptor was opened.
            if threads(cgroup)?.contains(&tid) && pidfd_send_signal(pidfd.as_fd(), signal).is_ok() {
                reached.insert(tid);
            }
        }
        Ok(())
    })?;
    Ok(reached)
}

/// For kernels before 5.14.
pub(super) fn kill_one_by_one(cgroup: &Path) -> Result<(), Error> {
    kill_while_frozen(cgroup, FREEZE, STATES, signal)
}

/// Freezes the cgroup, by writing the first of `states` to `file`, and kills its processes one by
/// one, by `signal`, which returns whom it has reached. Frozen ones can be killed, but can't fork. With
/// version 1 they end only once they are thawed, so it is done when all of them were reached, not when
/// none is left: fork(2) fails in a process that has a SIGKILL pending.
pub(super) fn kill_while_frozen(
    cgroup: &Path,
    file: &str,
    states: [&str; 2],
    mut signal: impl FnMut(&Path, i32) -> Result<HashSet<u32>, Error>,
) -> Result<(), Error> {
    let [frozen, thawed] = states;
    write(cgroup, file, frozen)?;
    let mut result = Ok(());
    let mut killed = HashSet::new();
    for _ in 0..ROUNDS {
        match signal(cgroup, libc::SIGKILL) {
            Ok(reached) if reached.is_subset(&killed) => break,
            Ok(reached) => killed.extend(reached),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    write(cgroup, file, thawed)?;
    result
}

/// Removes the cgroup with all below it. It is not an error if it does not exist.
pub(super) fn remove(cgroup: &Path) -> Result<(), Error> {
    if !remove_dir(cgroup)? {
        remove_children(cgroup)?;
        if !remove_dir(cgroup)? {
            return Err(still_there(cgroup));
        }
    }
    Ok(())
}

/// Removes all below the cgroup.
pub(super) fn remove_children(cgroup: &Path) -> Result<(), Error> {
    let mut found = Vec::new();
    for_each(cgroup, &mut |below| {
        found.push(below.to_owned());
        Ok(())
    })?;
    // Those below others were found after them.
    for below in found.iter().skip(1).rev() {
        if !remove_dir(below)? {
            return Err(still_there(below));
        }
    }
    Ok(())
}

fn still_there(cgroup: &Path) -> Error {
    // Version 1 does not say whether it is populated.
    let has_processes =
        populated(cgroup).unwrap_or(false) || pids(cgroup).is_ok_and(|pids| !pids.is_empty());
    match has_processes {
        true => Error::Populated(cgroup.to_owned()),
        false => Error::io("remove cgroup", cgroup)(io::Error::from_raw_os_error(libc::EBUSY)),
    }
}

/// Whether threads are in the cgroup itself, also if it is a threaded one.
fn has_threads(cgroup: &Path) -> bool {
    let list = |name| fs::read(cgroup.join(name));
    let listed = list("cgroup.threads").or_else(|_| list("tasks"));
    listed.is_ok_and(|listed| !listed.is_empty())
}

/// Removes one cgroup; `false` if there is something in it. Since Linux 6.19 a process is in its cgroup until it
/// has left the processor for the last time, after its exit is known and it was reaped: it is waited for.
pub(super) fn remove_dir(cgroup: &Path) -> Result<bool, Error> {
    let mut since = None;
    loop {
        match fs::remove_dir(cgroup) {
            Ok(()) => return Ok(true),
            Err(error) if is_gone(&error) => return Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty
                ) => {}
            Err(error) => return Err(Error::io("remove cgroup", cgroup)(error)),
        }
        let since = *since.get_or_insert_with(Instant::now);
        let looks_empty =
            children(cgroup).is_ok_and(|below| below.is_empty()) && !has_threads(cgroup);
        if !looks_empty || since.elapsed() > LEAVING {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Writes to a file of the cgroup; `false` if the file does not exist.
pub(super) fn write(cgroup: &Path, name: &str, value: &str) -> Result<bool, Error> {
    let path = cgroup.join(name);
    match write_existing(&path, value) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(Error::io("write to", &path)(error)),
    }
}

/// Without `O_CREAT`, as fs::write has it: for a file that is not there the kernel would answer
/// `EACCES` to that.
pub(super) fn write_existing(file: &Path, value: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .open(file)?
        .write_all(value.as_bytes())
}

/// The cgroups directly below.
pub(super) fn children(cgroup: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::io("list", cgroup)(error);
    let mut found = Vec::new();
    for entry in fs::read_dir(cgroup).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Visits the cgroup and all below it, each before those below it. One that goes meanwhile is
/// skipped.
pub(super) fn for_each(
    cgroup: &Path,
    visit: &mut dyn FnMut(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut waiting = vec![cgroup.to_owned()];
    while let Some(next) = waiting.pop() {
        match visit(&next).and_then(|()| children(&next)) {
            Ok(below) => waiting.extend(below),
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The processes in the cgroup and below it. One that does not exist has none.
pub(super) fn pids(cgroup: &Path) -> Result<Vec<u32>, Error> {
    let mut found = Vec::new();
    for_each(cgroup, &mut |cgroup| {
        found.extend(own_pids(cgroup)?);
        Ok(())
    })?;
    Ok(found)
}

/// The processes in this cgroup, without those below it.
pub(super) fn own_pids(cgroup: &Path) -> Result<Vec<u32>, Error> {
    let path = cgroup.join("cgroup.procs");
    match fs::read_to_string(&path) {
        // 0 is a process outside of this pid namespace.
        Ok(list) => Ok(list
            .lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|&pid| pid != 0)
            .collect()),
        // The processes of a threaded cgroup are listed by the domain above it.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

//! Processes as `/proc` describes them.
//!
//! A process is named by its [`ProcessIdentity`]; a bare pid is only taken where the caller is
//! known to hold it, as a parent that has not reaped it does.

mod stat;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::OwnedFd,
    sync::OnceLock,
};

use reaper_spec::ProcessIdentity;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use stat::Stat;

/// What one process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode of all its threads, and of the children that it has waited for,
    /// nanoseconds, in steps of a clock tick.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, likewise.
    pub cpu_system_ns: u64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// The part of it that is neither of a file nor shared, bytes.
    pub anonymous_bytes: u64,
    /// Threads.
    pub threads: u64,
}

/// The id of this boot of the host.
///
/// # Errors
/// Reading `/proc/sys/kernel/random/boot_id` failed.
pub fn boot_id() -> io::Result<String> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT_ID.get() {
        return Ok(known.clone());
    }
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT_ID.get_or_init(|| read.trim().to_owned()).clone())
}

/// Names the process that has this pid now, a zombie included.
///
/// # Errors
/// `NotFound` or `ESRCH` if there is none.
pub fn identify(pid: u32) -> io::Result<ProcessIdentity> {
    Ok(ProcessIdentity {
        pid,
        start_time: stat(pid)?.start_time,
        boot_id: boot_id()?,
    })
}

/// Whether the process runs: one of this boot, with this start time, that has not exited. A zombie
/// has exited.
pub fn is_alive(identity: &ProcessIdentity) -> bool {
    boot_id().is_ok_and(|boot| boot == identity.boot_id)
        && stat(identity.pid)
            .is_ok_and(|stat| stat.start_time == identity.start_time && !stat.has_ended())
}

/// Whether the process is stopped, by SIGSTOP or a tracer, so that it answers nothing.
pub(crate) fn is_stopped(identity: &ProcessIdentity) -> bool {
    stat(identity.pid).is_ok_and(|stat| {
        stat.start_time == identity.start_time && matches!(stat.state, b'T' | b't')
    })
}

/// Whether SIGKILL was sent to the process, so that it executes nothing of its program any more: it
/// exits as soon as an uninterruptible sleep ends.
pub(crate) fn is_killed(identity: &ProcessIdentity) -> bool {
    const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
    let status = fs::read_to_string(format!("/proc/{}/status", identity.pid)).unwrap_or_default();
    let is_pending = |line: &str| {
        let set = line
            .strip_prefix("SigPnd:")
            .or(line.strip_prefix("ShdPnd:"));
        let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        set.is_some_and(|set| set & SIGKILL != 0)
    };
    status.lines().any(is_pending) && is_alive(identity)
}

/// A process for a message: its pid, its name and its state's letter.
pub(crate) fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let state = stat(pid).map_or('?', |stat| char::from(stat.state));
    format!("{pid} ({}, state {state})", name.trim_end())
}

/// Opens the process, a zombie included, and nothing else that may have got its pid.
///
/// # Errors
/// `ESRCH` if it does not exist any more, or the pid is another process's; those of pidfd_open(2).
pub fn open_pidfd(identity: &ProcessIdentity) -> io::Result<OwnedFd> {
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    // Before, so that nothing of another boot is opened; after, because only then is it sure
    // that the descriptor is of the process that was looked at.
    let is_same = || match stat(identity.pid) {
        Ok(stat) if stat.start_time == identity.start_time => Ok(()),
        Ok(_) => Err(gone()),
        Err(error) if is_gone(&error) => Err(gone()),
        Err(error) => Err(error),
    };
    if boot_id()? != identity.boot_id {
        return Err(gone());
    }
    is_same()?;
    let pidfd = pidfd_of(identity.pid)?;
    is_same()?;
    Ok(pidfd)
}

/// The direct children of a process, zombies included, whichever of its threads forked them.
///
/// Children that are forked or reaped meanwhile may be missed: to kill all of them, ask again until
/// there are none.
///
/// # Errors
/// `NotFound` or `ESRCH` if there is no such process.
pub fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let mut path = task?.path();
        path.push("children");
        match fs::read_to_string(&path) {
            Ok(list) => found.extend(
                list.split_whitespace()
                    .filter_map(|c| c.parse::<u32>().ok()),
            ),
            // A kernel without CONFIG_PROC_CHILDREN, or a thread that has just ended.
            Err(error) if is_gone(&error) => {
                if path.parent().is_some_and(|task| task.exists()) {
                    return children_by_scan(pid);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn children_by_scan(parent: u32) -> io::Result<Vec<u32>> {
    scan(|stat| stat.parent == parent)
}

/// The processes of a session (setsid(2)), zombies included.
pub(crate) fn session(leader: u32) -> io::Result<Vec<u32>> {
    scan(|stat| stat.session == leader)
}

fn scan(is_wanted: impl Fn(&Stat) -> bool) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // One that ended since the folder was read is not there any more.
        if stat(pid).is_ok_and(|stat| is_wanted(&stat)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether the process has executed a program since it was forked. Says so of a zombie too.
///
/// # Errors
/// `NotFound` or `ESRCH` if there is no such process.
pub fn has_execed(pid: u32) -> io::Result<bool> {
    /// `PF_FORKNOEXEC` of the kernel's `sched.h`: forked, but no execve yet.
    const FORKED_NOT_EXECED: u64 = 0x40;
    Ok(stat(pid)?.flags & FORKED_NOT_EXECED == 0)
}

/// What a process uses now.
///
/// # Errors
/// `NotFound` or `ESRCH` if there is no such process.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = stat(pid)?;
    let memory = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let (resident, shared) = stat::resident_and_shared_pages(&memory).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/statm: {memory:?}"),
        )
    })?;
    let page = rustix::param::page_size() as u64;
    Ok(Usage {
        cpu_user_ns: nanoseconds(stat.user_ticks.saturating_add(stat.reaped_user_ticks)),
        cpu_system_ns: nanoseconds(stat.system_ticks.saturating_add(stat.reaped_system_ticks)),
        rss_bytes: resident.saturating_mul(page),
        anonymous_bytes: resident.saturating_sub(shared).saturating_mul(page),
        threads: stat.threads,
    })
}

/// The CPU time of the children that a process has waited for, and of theirs: in user mode and in the kernel,
/// nanoseconds.
///
/// # Errors
/// `NotFound` or `ESRCH` if there is no such process.
pub(crate) fn reaped_cpu(pid: u32) -> io::Result<(u64, u64)> {
    let stat = stat(pid)?;
    Ok((
        nanoseconds(stat.reaped_user_ticks),
        nanoseconds(stat.reaped_system_ticks),
    ))
}

fn nanoseconds(ticks: u64) -> u64 {
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(tick)
}

/// Whether it is a line of `/proc/PID/stat`.
#[cfg(feature = "fuzzing")]
pub(crate) fn is_stat(line: &[u8]) -> bool {
    Stat::parse(line).is_some()
}

/// Whether an error of a file below `/proc/PID` means that the process does not exist any more:
/// `ENOENT` if the folder did not exist, `ESRCH` if the process was reaped while its file was open.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// A descriptor of the process that has this number now; `ESRCH` if none has.
pub(crate) fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    use rustix::io::Errno;
    let opened = pidfd_open(raw_pid(pid)?, PidfdFlags::empty()).map_err(|error| match error {
        // The number is a thread's, or that of a process which is reaped at this moment (kernel/fork.c,
        // `pidfd_prepare`; another number since Linux 6.16).
        Errno::INVAL | Errno::NOENT => Errno::SRCH,
        error => error,
    });
    Ok(opened?)
}

/// The process that the thread `tid` is one of; `None` if there is no such thread.
pub(crate) fn process_of_thread(tid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let pid = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    pid?.trim().parse().ok()
}

pub(crate) fn raw_pid(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

fn stat(pid: u32) -> io::Result<Stat> {
    // Bytes: a command's name need not be UTF-8. The kernel gives the whole line, 52 numbers and
    // a name of at most 64 bytes, to one read; fs::read would take half a dozen.
    let mut buffer = [0; 2048];
    let length = File::open(format!("/proc/{pid}/stat"))?.read(&mut buffer)?;
    let line = &buffer[..length];
    Stat::parse(line).ok_or_else(|| {
        let shown = String::from_utf8_lossy(line).into_owned();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat: {shown:?}"),
        )
    })
}

#[cfg(test)]
mod tests;

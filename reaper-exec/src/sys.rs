//! System calls without a safe wrapper elsewhere, and nothing that could be done without `unsafe`.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use nix::{
    sys::signal::{SigHandler, SigSet, Signal},
    unistd::{ForkResult, Pid},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Whether standard output was open when this program began.
static STDOUT_WAS_OPEN: AtomicBool = AtomicBool::new(true);

/// Looks at standard output before Rust's runtime does, which opens `/dev/null` in the place of a
/// standard stream that is closed: writes would then succeed, and go nowhere.
extern "C" fn look_at_stdout() {
    // SAFETY: fcntl(2) with F_GETFD takes plain numbers. It needs nothing that is set up later.
    let flags = unsafe { libc::fcntl(1, libc::F_GETFD) };
    STDOUT_WAS_OPEN.store(flags != -1, Ordering::Relaxed);
}

// SAFETY: the C library calls the functions of this section, which take no argument that is needed
// here, before main; this one touches nothing but an atomic.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = look_at_stdout;

/// Whether standard output was open when this program began. Where it was closed, Rust's runtime has opened
/// `/dev/null` in its place: what is printed goes nowhere, and printing succeeds nevertheless.
pub fn stdout_was_open() -> bool {
    STDOUT_WAS_OPEN.load(Ordering::Relaxed)
}

/// Forks. In the child it returns `None`.
///
/// It is safe only because a monitor is single threaded: no lock of the allocator or of anything
/// else can be held by a thread that the child does not have.
///
/// # Panics
/// The process has other threads.
pub(crate) fn fork() -> nix::Result<Option<Pid>> {
    assert_single_threaded();
    // SAFETY: the calling process has one thread, so the child may do all that the parent may.
    Ok(match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    })
}

// The kernel's `struct clone_args` is 64-bit numbers only; not every C library's headers have it.
const CLONE_ARGS: usize = 11;
const CLONE_ARGS_FLAGS: usize = 0;
const CLONE_ARGS_EXIT_SIGNAL: usize = 4;
const CLONE_ARGS_CGROUP: usize = 10;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks as [`fork`], with the child in the cgroup whose folder is open as `cgroup` from its
/// first instruction on. Joining afterwards costs an RCU grace period, about 6 ms; this nothing.
///
/// # Errors
/// `ENOSYS`, `E2BIG` or `EINVAL` from kernels before 5.7, and `ENOSYS` or `EPERM` from a seccomp
/// filter that forbids clone3: fork, and let the child join by itself. Others are the cgroup's
/// refusal.
///
/// # Panics
/// The process has other threads.
pub(crate) fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Option<Pid>> {
    assert_single_threaded();
    let mut arguments = [0_u64; CLONE_ARGS];
    arguments[CLONE_ARGS_FLAGS] = CLONE_INTO_CGROUP;
    arguments[CLONE_ARGS_EXIT_SIGNAL] = libc::SIGCHLD as u64;
    arguments[CLONE_ARGS_CGROUP] = cgroup.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM and a stack of its own this is fork(2): the child goes on with a
    // copy of all memory. The C library does not hear of it and keeps the parent's thread id for
    // the child, which only its robust and recursive locks and abort(3) look at; the child has
    // one thread, and ends by execve(2) or _exit(2).
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    };
    match pid {
        ..0 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        child => Ok(i32::try_from(child).ok().map(Pid::from_raw)),
    }
}

fn assert_single_threaded() {
    assert!(
        is_single_threaded(),
        "a process that forks without exec must have one thread"
    );
}

fn checked(result: libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether no other thread of this process runs.
pub(crate) fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) == 1
}

/// Ends the process without running what was registered for a normal exit, which belongs to the
/// process that this one was forked from.
pub(crate) fn exit_now(code: i32) -> ! {
    #[cfg(tarpaulin)]
    write_coverage();
    // SAFETY: _exit(2) has no precondition.
    unsafe { libc::_exit(code) }
}

/// Coverage is written by what was registered for a normal exit, under a name with the number of
/// the process, which a fork makes another. It gets that name once it is whole: this process may
/// be killed meanwhile.
#[cfg(tarpaulin)]
fn write_coverage() {
    unsafe extern "C" {
        fn __llvm_profile_set_filename(name: *const std::ffi::c_char);
        fn __llvm_profile_write_file() -> std::ffi::c_int;
    }
    let Ok(name) = std::env::var("LLVM_PROFILE_FILE") else {
        return;
    };
    let name = name.replace("%p", &std::process::id().to_string());
    let name = name.replace("%m", "left");
    let part = format!("{name}.part");
    let Ok(path) = std::ffi::CString::new(part.as_str()) else {
        return;
    };
    // SAFETY: the runtime of the instrumentation has both, wherever this is built; the name lives
    // until they have returned. They are called by a process of one thread, at its end.
    unsafe {
        __llvm_profile_set_filename(path.as_ptr());
        __llvm_profile_write_file();
    }
    // Who cannot write there has nothing to rename either.
    let _ = std::fs::rename(part, name);
}

/// Closes every descriptor from `first` to `last` (close_range(2)).
///
/// The caller must not use an owner of one of them afterwards, not even by dropping it: it is
/// meant for a forked child that will only call `execve` or `_exit`.
///
/// # Errors
/// `ENOSYS` before Linux 5.9; `EPERM` or `ENOSYS` from a seccomp filter that does not know the call.
pub(crate) fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: close_range(2) takes plain numbers; the owners are forgotten by the contract above.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Gives every signal its default disposition, those included that the C library keeps for
/// itself and does not let a program change, but that an ancestor may have left ignored.
pub(crate) fn default_signals() {
    /// At least as large as the kernel's `struct sigaction` anywhere; `SIG_DFL` is 0.
    const DEFAULT: [u64; 8] = [0; 8];
    const SET_SIZE: usize = 8;
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the kernel reads a default action from memory that is large enough, and writes
        // nothing. SIGKILL and SIGSTOP are refused by EINVAL.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SET_SIZE,
            )
        };
    }
}

/// Has this process, and what it executes, ignore `signal`.
pub(crate) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is no handler that could run.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Replaces the session keyring by a new one, which has no name, so that no other process can join
/// it. Keys that are possessed by way of the old one are no longer found (session-keyring(7)).
///
/// # Errors
/// `ENOSYS` where the kernel has no keyrings, `EPERM` or `ENOSYS` from a seccomp filter, which the
/// process and its descendants keep; `EDQUOT` for a user with too many keys.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for a keyring without one.
    checked(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, no_name) })
}

/// Has this process, and what it executes, make the system calls only that `program` allows
/// (seccomp(2)). Returns the listener, if the flags ask for one.
///
/// # Errors
/// `EACCES` without `no_new_privs` and `CAP_SYS_ADMIN`; `EINVAL` for a flag that this kernel does not
/// have, or a kernel without filters; `EBUSY` if a filter with a listener is in force already.
pub(crate) fn load_filter(
    program: &[libc::sock_filter],
    flags: libc::c_ulong,
) -> io::Result<Option<OwnedFd>> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(too_long)?,
        filter: program.as_ptr().cast_mut(),
    };
    let operation = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads a program from memory that outlives the call, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    match result {
        ..0 => Err(io::Error::last_os_error()),
        listener if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 => {
            let listener = i32::try_from(listener).map_err(too_long)?;
            Ok(Some(own_fd(listener)))
        }
        _ => Ok(None),
    }
}

/// Gives this process the policy `SCHED_OTHER`.
pub(crate) fn set_ordinary_policy() -> io::Result<()> {
    // SAFETY: an all-zero sched_param is the priority 0, which SCHED_OTHER demands.
    let result = unsafe {
        let priority: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const priority)
    };
    checked(result.into())
}

/// The first version of the kernel's `struct sched_attr` (sched_setattr(2)).
#[repr(C)]
pub(crate) struct SchedulerAttributes {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// Sets the scheduling policy of this process.
pub(crate) fn set_scheduler(attributes: &SchedulerAttributes) -> io::Result<()> {
    const NO_FLAGS: libc::c_uint = 0;
    let attributes = std::ptr::from_ref(attributes);
    // SAFETY: the kernel reads a structure of the size that it says, which outlives the call.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, attributes, NO_FLAGS) })
}

/// Sets the I/O priority of this process.
pub(crate) fn set_io_priority(value: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the call takes numbers.
    checked(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })
}

/// Has this process run on the processors whose bits are set (sched_setaffinity(2)).
pub(crate) fn set_processors(set: &[u64; 128]) -> io::Result<()> {
    let size = size_of_val(set);
    // SAFETY: the kernel reads a set of the size that is said, which outlives the call.
    checked(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, set.as_ptr()) })
}

/// Duplicates `from` onto the number `to`, which stays open over `execve`.
pub(crate) fn duplicate_onto(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2(2) takes plain numbers; whatever `to` was is replaced, which the caller wants.
    checked(unsafe { libc::dup2(from, to) }.into())
}

/// Gives SIGCHLD its default disposition, whatever was inherited.
pub(crate) fn default_sigchld() -> io::Result<()> {
    // SAFETY: the default of a signal runs no code of this process.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// Sends a signal, a real-time one too, to the calling thread.
pub(crate) fn raise(signal: i32) {
    // SAFETY: raise(3) takes a number; whatever the signal does is what the caller wants.
    unsafe { libc::raise(signal) };
}

/// Owns a descriptor number that fcntl(2) has just returned.
pub(crate) fn own_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made the number for the caller, who hands it over at once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// pidfd_send_signal(2) with any number: rustix has only named signals, no real-time ones.
pub(crate) fn pidfd_send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes a descriptor that is open for the length of the borrow and plain
    // numbers; a null siginfo is documented as "what kill(2) would send".
    checked(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    })
}

/// Watches an owned descriptor with the runtime's reactor.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, which is what
    // the reactor relies on.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// A child that has ended and has not been reaped, left as it is; `ECHILD` without any child.
///
/// nix refuses to name a child that a real-time signal has ended.
pub(crate) fn next_ended() -> nix::Result<Option<Pid>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: an all-zero siginfo_t is valid, and waitid(2) fills it or leaves it.
    let info = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        nix::errno::Errno::result(libc::waitid(libc::P_ALL, 0, &raw mut info, options))?;
        info
    };
    // SAFETY: after waitid(2) the pid is set, to 0 where no child has ended.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// What a child does between its fork(2) and its execve(2): system calls alone.
#[derive(Debug)]
pub(crate) enum BeforeExec {
    /// Gives every signal its default disposition, and blocks none.
    ResetSignals,
    /// Closes these, as far as they are open.
    Close(Vec<RawFd>),
    /// Has these closed by the execve(2), as far as they are open.
    CloseOnExec(Vec<RawFd>),
    /// Has all from this one on closed by the execve(2), where the kernel can (Linux 5.11).
    CloseOnExecFrom(RawFd),
    /// Puts these onto the numbers from 3 on. What had such a number is replaced.
    DuplicateFrom3([OwnedFd; 3]),
    /// Makes this directory the root. The working directory stays.
    ChangeRoot(CString),
    /// Begins a session.
    NewSession,
    /// Has the kernel kill the process when its parent's thread ends.
    EndWithParent,
}

impl BeforeExec {
    fn run(&self) -> io::Result<()> {
        match self {
            Self::ResetSignals => {
                default_signals();
                SigSet::empty().thread_set_mask()?;
            }
            Self::Close(files) => {
                for &file in files {
                    let _ = nix::unistd::close(file);
                }
            }
            Self::CloseOnExec(files) => {
                for &file in files {
                    // SAFETY: F_SETFD takes a number.
                    unsafe { libc::fcntl(file, libc::F_SETFD, libc::FD_CLOEXEC) };
                }
            }
            Self::CloseOnExecFrom(first) => {
                // SAFETY: close_range(2) takes plain numbers.
                unsafe {
                    libc::syscall(
                        libc::SYS_close_range,
                        *first,
                        RawFd::MAX,
                        libc::CLOSE_RANGE_CLOEXEC,
                    )
                };
            }
            Self::DuplicateFrom3(files) => {
                for (number, file) in (3..).zip(files) {
                    duplicate_onto(file.as_raw_fd(), number)?;
                }
            }
            Self::ChangeRoot(path) => nix::unistd::chroot(path.as_c_str())?,
            Self::NewSession => drop(nix::unistd::setsid()?),
            Self::EndWithParent => nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?,
        }
        Ok(())
    }
}

/// Has `command` take these steps in the child, before its execve(2). An error of one is that of the spawn.
pub(crate) fn before_exec(command: &mut Command, steps: Vec<BeforeExec>) {
    let run = move || steps.iter().try_for_each(BeforeExec::run);
    // SAFETY: all steps are async-signal-safe: they call system calls alone and allocate nothing. An owner
    // of a descriptor that one closes or replaces is not used any more, since the child is about to
    // execute another program.
    unsafe { command.pre_exec(run) };
}

/// bpf(2), as far as programs need it that decide on access to devices. Nothing else of the kernel's programs
/// is used here, which does not warrant a crate for them.
pub(crate) mod bpf {
    use std::{
        ffi::CStr,
        io,
        os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    };

    use super::own_fd;

    /// Commands, and what programs are for (linux/bpf.h).
    const PROG_LOAD: libc::c_long = 5;
    const PROG_ATTACH: libc::c_long = 8;
    const PROG_DETACH: libc::c_long = 9;
    const PROG_GET_FD_BY_ID: libc::c_long = 13;
    const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    const PROG_QUERY: libc::c_long = 16;
    const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const CGROUP_DEVICE: u32 = 6;
    /// Others may be attached beside it, and in cgroups above and below.
    const ALLOW_MULTI: u32 = 2;

    /// The part of `union bpf_attr` for `BPF_PROG_LOAD`, up to the name (Linux 4.15).
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }

    /// The part for `BPF_PROG_ATTACH`.
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        attach_type: u32,
        flags: u32,
    }

    /// The part for `BPF_PROG_QUERY`, which the kernel changes.
    #[repr(C)]
    struct Query {
        target: u32,
        attach_type: u32,
        flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        unused: u32,
    }

    /// The part for `BPF_OBJ_GET_INFO_BY_FD`, of which the kernel changes the length.
    #[repr(C)]
    struct Info {
        file: u32,
        length: u32,
        info: u64,
    }

    fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
        let size = size_of::<T>();
        let attributes = std::ptr::from_mut(attributes);
        // SAFETY: the kernel reads attributes of the size that is said, and writes to what they point to no more
        // than they say. All of it outlives the call.
        match unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) } {
            ..0 => Err(io::Error::last_os_error()),
            result => i32::try_from(result).map_err(io::Error::other),
        }
    }

    /// Loads a program, of instructions of eight bytes each. It is gone with its last descriptor and the
    /// last cgroup that it is attached to.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` (or `CAP_BPF` and `CAP_NET_ADMIN`), and before Linux 5.11 where it is
    /// more memory than may be locked; `EINVAL` or `ENOSYS` from a kernel without such programs; `EACCES`
    /// for a program that the kernel does not accept.
    pub(crate) fn load(
        instructions: &[[u8; 8]],
        license: &CStr,
        name: [u8; 16],
    ) -> io::Result<OwnedFd> {
        let mut attributes = Load {
            program_type: PROG_TYPE_CGROUP_DEVICE,
            instruction_count: instructions.len().try_into().map_err(io::Error::other)?,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            name,
            ..Load::default()
        };
        call(PROG_LOAD, &mut attributes).map(own_fd)
    }

    /// Attaches a program to the cgroup whose folder is open as `cgroup`, beside those that are there.
    ///
    /// # Errors
    /// `EPERM` where a cgroup above has one that suffers no other.
    pub(crate) fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
        call(PROG_ATTACH, &mut attachment(cgroup, program, ALLOW_MULTI)).map(drop)
    }

    /// Detaches it.
    ///
    /// # Errors
    /// `ENOENT` if it is not attached there.
    pub(crate) fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
        call(PROG_DETACH, &mut attachment(cgroup, program, 0)).map(drop)
    }

    fn attachment(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, flags: u32) -> Attach {
        Attach {
            target: cgroup.as_raw_fd().cast_unsigned(),
            program: program.as_raw_fd().cast_unsigned(),
            attach_type: CGROUP_DEVICE,
            flags,
        }
    }

    /// The ids of the programs that are attached to this cgroup, not to those above.
    ///
    /// # Errors
    /// `ENOSPC` if there are more than the kernel lets be attached; those of bpf(2).
    pub(crate) fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
        // As many as can be attached to one cgroup.
        let mut ids = [0_u32; 64];
        let mut query = Query {
            target: cgroup.as_raw_fd().cast_unsigned(),
            attach_type: CGROUP_DEVICE,
            flags: 0,
            attach_flags: 0,
            ids: ids.as_mut_ptr() as u64,
            count: 64,
            unused: 0,
        };
        call(PROG_QUERY, &mut query)?;
        Ok(ids.into_iter().take(query.count as usize).collect())
    }

    /// Opens a program.
    ///
    /// # Errors
    /// `ENOENT` if there is none of this id any more; `EPERM`.
    pub(crate) fn open(id: u32) -> io::Result<OwnedFd> {
        let mut attributes = [id, 0, 0];
        call(PROG_GET_FD_BY_ID, &mut attributes).map(own_fd)
    }

    /// The beginning of the `struct bpf_prog_info` of a program.
    ///
    /// # Errors
    /// Those of bpf(2).
    pub(crate) fn info(program: BorrowedFd<'_>) -> io::Result<[u8; 128]> {
        let mut info = [0_u8; 128];
        let mut attributes = Info {
            file: program.as_raw_fd().cast_unsigned(),
            length: 128,
            info: info.as_mut_ptr() as u64,
        };
        call(OBJ_GET_INFO_BY_FD, &mut attributes)?;
        Ok(info)
    }
}

/// A page of numbers in a file, which all processes that map it see and change.
#[derive(Debug)]
pub(crate) struct MappedNumbers(std::ptr::NonNull<AtomicU64>);

// SAFETY: the page is at the same address for all threads, and holds atomics only.
unsafe impl Send for MappedNumbers {}
// SAFETY: as above.
unsafe impl Sync for MappedNumbers {}

impl MappedNumbers {
    /// The size of the file.
    pub(crate) const BYTES: usize = 4096;

    /// The numbers in `file`, which was opened for reading and writing.
    pub(crate) fn of(file: &std::fs::File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        // Beyond the end of a file a page is not there, and touching it ends the process (SIGBUS).
        if !metadata.is_file() || metadata.len() != Self::BYTES as u64 {
            let text = "the file of the counts is not a page long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = std::ptr::NonNull::new(page.cast());
        page.map(Self)
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// The numbers.
    pub(crate) fn numbers(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is a page long, aligned as pages are, and lives as long as this. Of its bytes each
        // is initialised, and what other processes do to them they do by atomic instructions of the same size.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), Self::BYTES / size_of::<AtomicU64>()) }
    }
}

impl Drop for MappedNumbers {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping any more, which this made and nothing else unmaps.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Self::BYTES) };
    }
}

/// Runs `test` in a child, which has no thread of another test.
#[cfg(test)]
pub(crate) fn alone(test: fn()) {
    // SAFETY: the C library makes its allocator usable in the child; no lock of this crate is
    // taken.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => exit_now(std::panic::catch_unwind(test).is_err().into()),
        ForkResult::Parent { child } => {
            assert_eq!(
                nix::sys::wait::waitpid(child, None),
                Ok(nix::sys::wait::WaitStatus::Exited(child, 0))
            );
        }
    }
}

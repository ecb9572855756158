//! System calls without a safe wrapper elsewhere.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{SigHandler, SigSet, Signal},
    unistd::{ForkResult, Pid},
};
use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
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

fn is_single_threaded() -> bool {
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

/// Has `command` start with no signal blocked or ignored: the monitor blocks those that it waits
/// for, and may have been started by a program that ignores some.
pub(crate) fn reset_signals_before_exec(command: &mut Command) {
    let reset = || {
        default_signals();
        SigSet::empty().thread_set_mask().map_err(io::Error::from)
    };
    // SAFETY: the closure calls rt_sigaction(2) and pthread_sigmask(3), and allocates nothing.
    unsafe { command.pre_exec(reset) };
}

/// Has `command` close what is open now, from the descriptor 6 on, before its execve(2): a child
/// has copies of all that the monitor holds, and a FIFO that the child has an end of seems to have
/// a reader. Close-on-exec comes too late, since the parent hears of the execve(2) while it is
/// being done.
///
/// Nothing of it may be closed until the command is spawned: the standard library's own pipe could
/// get its number. Another thread could open a file meanwhile, so in a
/// process with other threads nothing is done.
pub(crate) fn close_before_exec(command: &mut Command) -> io::Result<()> {
    if !is_single_threaded() {
        return Ok(());
    }
    let open: Vec<RawFd> = open_files()?.into_iter().filter(|&file| file > 5).collect();
    let close = move || {
        for &file in &open {
            // SAFETY: close(2) is async-signal-safe, and the child will only execute a program.
            unsafe { libc::close(file) };
        }
        Ok(())
    };
    // SAFETY: the closure calls close(2) alone, and allocates nothing.
    unsafe { command.pre_exec(close) };
    Ok(())
}

/// Has `command` get this directory as its root. Its working directory, which was set before, stays.
pub(crate) fn change_root_before_exec(
    command: &mut Command,
    root: BorrowedFd<'_>,
) -> io::Result<()> {
    let path = CString::new(format!("/proc/self/fd/{}", root.as_raw_fd()))?;
    let change = move || nix::unistd::chroot(path.as_c_str()).map_err(io::Error::from);
    // SAFETY: the closure calls chroot(2) alone, and allocates nothing.
    unsafe { command.pre_exec(change) };
    Ok(())
}

/// Has `command` lead a session of its own and end with its parent, and has none of what is open now but
/// its standard streams.
pub(crate) fn separate_before_exec(command: &mut Command) -> io::Result<()> {
    let mut open = open_files()?;
    open.retain(|&file| file > 2);
    let separate = move || {
        nix::unistd::setsid()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        for &file in &open {
            // SAFETY: F_SETFD takes a number. A pipe of the standard library has the flag already.
            unsafe { libc::fcntl(file, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        Ok(())
    };
    // SAFETY: the closure calls setsid(2), prctl(2) and fcntl(2) alone, and allocates nothing.
    unsafe { command.pre_exec(separate) };
    Ok(())
}

/// The descriptors that are open.
fn open_files() -> io::Result<Vec<RawFd>> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    // Not the one by which they were listed.
    // SAFETY: F_GETFD only asks.
    open.retain(|&file| unsafe { libc::fcntl(file, libc::F_GETFD) } >= 0);
    Ok(open)
}

/// Closes every descriptor from `first` to `last`.
///
/// The caller must not use an owner of one of them afterwards, not even by dropping it: it is
/// meant for a forked child that will only call `execve` or `_exit`.
pub(crate) fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    if last < first {
        return Ok(());
    }
    // SAFETY: close_range(2) takes plain numbers; the owners are forgotten by the contract above.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Before Linux 5.9, or as a seccomp filter says that does not know the call.
    if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
        return Err(error);
    }
    let open = open_files()?;
    for fd in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Closes a descriptor.
///
/// The caller must not use its owner afterwards, not even by dropping it, as with [`close_range`].
pub(crate) fn close(fd: RawFd) {
    // SAFETY: close(2) takes a number; the owner is forgotten by the contract above.
    unsafe { libc::close(fd) };
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
    match unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, no_name) } {
        ..0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
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

/// The securebits of this process (capabilities(7)).
pub(crate) fn securebits() -> i32 {
    // SAFETY: the call has no arguments.
    unsafe { libc::prctl(libc::PR_GET_SECUREBITS) }
}

/// Clears the securebits, as far as they are not locked and this process may.
pub(crate) fn clear_securebits() {
    // SAFETY: the call takes a number.
    unsafe { libc::prctl(libc::PR_SET_SECUREBITS, 0) };
}

/// Gives this process the nice value 0 and the policy, the I/O priority, the processors and the
/// personality that processes have from the start, as far as it may: a lower nice value needs
/// rights.
pub(crate) fn default_scheduling() {
    const NO_IO_PRIORITY: i32 = 0;
    // SAFETY: an all-zero sched_param is the priority 0, which SCHED_OTHER demands; the other call
    // takes numbers. An error leaves what was, here and below.
    unsafe {
        let priority: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const priority);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
    }
    let _ = set_io_priority(NO_IO_PRIORITY);
    // Processors beyond those that there are do not matter (sched_setaffinity(2)).
    let _ = set_processors(&[u64::MAX; 128]);
    let _ = set_personality(0);
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

fn checked(result: libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

/// Has this process run on these processors.
pub(crate) fn set_affinity(processors: &[u32]) -> io::Result<()> {
    let mut set = [0_u64; 128];
    for &processor in processors {
        let word = set.get_mut(processor as usize / 64);
        let word = word.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        *word |= 1 << (processor % 64);
    }
    set_processors(&set)
}

fn set_processors(set: &[u64; 128]) -> io::Result<()> {
    let size = size_of_val(set);
    // SAFETY: the kernel reads a set of the size that is said, which outlives the call.
    checked(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, set.as_ptr()) })
}

/// A read-only mount of the file `path` alone, which is mounted nowhere and lasts as long as it is used.
///
/// # Errors
/// `EPERM` for ordinary users, `ENOSYS` before Linux 5.12.
pub(crate) fn read_only_mount(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags)?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the empty path is a NUL-terminated string, `attr` is a valid `mount_attr` of the size
    // given, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of_val(&attr),
        )
    };
    checked(result)?;
    Ok(tree)
}

/// Sets the execution domain of this process.
pub(crate) fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: the call takes a number.
    checked(unsafe { libc::personality(domain.into()) }.into())
}

/// Duplicates `from` onto the number `to`, which stays open over `execve`.
pub(crate) fn duplicate_onto(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2(2) takes plain numbers; whatever `to` was is replaced, which the caller wants.
    if unsafe { libc::dup2(from, to) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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

/// Makes the terminal `fd` the controlling terminal of the calling session leader.
pub(crate) fn take_terminal(fd: RawFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument.
    if unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets the command inherit `files` as descriptors 3, 4 and 5, and nothing else from 6 on, with no
/// signal blocked or ignored.
///
/// The returned descriptors must live until the command was spawned: they keep 3, 4 and 5 from
/// being used for the pipe by which the standard library reports a failing execve(2).
pub(crate) fn inherit_three(
    command: &mut Command,
    files: [OwnedFd; 3],
) -> io::Result<Vec<OwnedFd>> {
    let mut reserved = Vec::new();
    loop {
        let spare = duplicate_above(&files[0], 3)?;
        if spare.as_raw_fd() > 5 {
            break;
        }
        reserved.push(spare);
    }
    let [first, second, third] = files;
    // Above 5, so that no dup2(2) overwrites the source of the next.
    let files = [
        duplicate_above(&first, 6)?,
        duplicate_above(&second, 6)?,
        duplicate_above(&third, 6)?,
    ];
    let prepare = move || {
        for (target, file) in (3..).zip(&files) {
            // SAFETY: dup2(2) is async-signal-safe; the source is open, for the closure owns it. An
            // owner of the target's former descriptor is not used any more, since this process is
            // about to execute another program.
            if unsafe { libc::dup2(file.as_raw_fd(), target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: a system call with integer arguments, which touches no memory. Close-on-exec
        // leaves the standard library's own pipe usable. A kernel without it (before 5.11) has
        // only descriptors that were opened close-on-exec.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                6u32,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        Ok(())
    };
    reset_signals_before_exec(command);
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    Ok(reserved)
}

fn duplicate_above(fd: &OwnedFd, minimum: RawFd) -> io::Result<OwnedFd> {
    Ok(own_fd(fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(minimum))?))
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
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
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

/// bpf(2), as far as programs for devices need it. Nothing else of the kernel's programs is used here,
/// which does not warrant a crate for them.
pub(crate) mod bpf {
    use std::{
        io,
        os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    };

    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    use super::{BpfInstruction, own_fd};

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

    /// Loads a program that decides on access to devices. It is gone with its last descriptor and the
    /// last cgroup that it is attached to.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` (or `CAP_BPF` and `CAP_NET_ADMIN`); `EINVAL` or `ENOSYS` from
    /// a kernel without such programs; `EACCES` for a program that the kernel does not accept.
    pub(crate) fn load_device_program(
        program: &[BpfInstruction],
        name: &str,
    ) -> io::Result<OwnedFd> {
        // No function of the kernel is called, for which the license would count.
        let license = c"MIT";
        let mut attributes = Load {
            program_type: PROG_TYPE_CGROUP_DEVICE,
            instruction_count: program.len().try_into().map_err(io::Error::other)?,
            instructions: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            ..Load::default()
        };
        // It ends with a zero.
        let name = name.bytes().take(attributes.name.len() - 1);
        for (to, byte) in attributes.name.iter_mut().zip(name) {
            *to = byte;
        }
        let mut load = || call(PROG_LOAD, &mut attributes).map(own_fd);
        match load() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => with_locked_memory(load),
            loaded => loaded,
        }
    }

    /// Before 5.11 programs count as the memory that their user has locked, and containers' as that of
    /// root. The limit is lifted meanwhile: a container must not inherit another one.
    fn with_locked_memory<T>(load: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        setrlimit(
            Resource::RLIMIT_MEMLOCK,
            libc::RLIM_INFINITY,
            libc::RLIM_INFINITY,
        )?;
        let loaded = load();
        setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
        loaded
    }

    /// Attaches a program that decides on access to devices to the cgroup whose folder is open as `cgroup`,
    /// beside those that are there.
    ///
    /// # Errors
    /// `EPERM` where a cgroup above has one that suffers no other.
    pub(crate) fn attach_device_program(
        cgroup: BorrowedFd<'_>,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        call(PROG_ATTACH, &mut attachment(cgroup, program, ALLOW_MULTI)).map(drop)
    }

    /// Detaches it.
    ///
    /// # Errors
    /// `ENOENT` if it is not attached there.
    pub(crate) fn detach_device_program(
        cgroup: BorrowedFd<'_>,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
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

    /// The ids of the programs that decide on access to devices and are attached to this cgroup, not to
    /// those above.
    ///
    /// # Errors
    /// `ENOSPC` if there are more than the kernel lets be attached; those of bpf(2).
    pub(crate) fn device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
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
    pub(crate) fn open_program(id: u32) -> io::Result<OwnedFd> {
        let mut attributes = [id, 0, 0];
        call(PROG_GET_FD_BY_ID, &mut attributes).map(own_fd)
    }

    /// The name of a program.
    ///
    /// # Errors
    /// Those of bpf(2).
    pub(crate) fn program_name(program: BorrowedFd<'_>) -> io::Result<String> {
        /// Where it is in `struct bpf_prog_info`, of which this is more than the beginning.
        const NAME: std::ops::Range<usize> = 64..80;
        let mut info = [0_u8; 128];
        let mut attributes = Info {
            file: program.as_raw_fd().cast_unsigned(),
            length: 128,
            info: info.as_mut_ptr() as u64,
        };
        call(OBJ_GET_INFO_BY_FD, &mut attributes)?;
        let name = info[NAME].split(|&byte| byte == 0).next();
        Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
    }
}

/// An instruction of the kernel's machine for programs, `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BpfInstruction {
    pub(crate) code: u8,
    /// The destination and the source, four bits each.
    registers: u8,
    pub(crate) offset: i16,
    pub(crate) value: i32,
}

impl BpfInstruction {
    pub(crate) fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Self {
        // They are a bit field, which begins at the other end in big endian.
        let registers = match cfg!(target_endian = "little") {
            true => to | from << 4,
            false => to << 4 | from,
        };
        Self {
            code,
            registers,
            offset,
            value,
        }
    }

    /// The destination, and the source.
    #[cfg(test)]
    pub(crate) fn registers(&self) -> (usize, usize) {
        let (low, high) = (self.registers & 15, self.registers >> 4);
        match cfg!(target_endian = "little") {
            true => (low.into(), high.into()),
            false => (high.into(), low.into()),
        }
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn close_before_exec_closes_descriptors_of_the_parent() {
        alone(|| (0..20).for_each(|_| runs_without_the_pipe_of_its_parent()));
    }

    fn runs_without_the_pipe_of_its_parent() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        // Closing all of them takes the child a while.
        let writers: Vec<_> = (0..500).map(|_| writer.try_clone().unwrap()).collect();
        drop(writer);
        let mut command = Command::new("/bin/true");
        close_before_exec(&mut command).unwrap();
        let mut child = command.spawn().unwrap();
        drop(writers);
        let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::ZERO).unwrap();
        let hung_up = ready[0].revents();
        assert!(child.wait().unwrap().success());
        assert_eq!(hung_up, Some(PollFlags::POLLHUP));
    }

    #[test]
    fn close_before_exec_keeps_error_for_missing_program() {
        alone(|| {
            let mut command = Command::new("/nonexistent");
            close_before_exec(&mut command).unwrap();
            let error = command.spawn().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        });
    }
}

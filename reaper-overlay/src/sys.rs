//! The system calls that have no safe wrapper elsewhere.
#![allow(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command},
};

use nix::unistd::{ForkResult, Pid};

/// Forks. `None` is the child.
///
/// The child of a process with several threads may only make system calls that need no lock of
/// another thread; the callers say in their contracts that they want a single thread.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the child runs one closure and leaves by `exit_now`; what it allocates is guarded by
    // the C library's own fork handlers, and it takes no lock of this crate.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { child }) => Ok(Some(child)),
        Ok(ForkResult::Child) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Ends the process without running destructors or handlers that belong to its parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { nix::libc::_exit(code) }
}

/// What `mount_setattr` changes (`struct mount_attr`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub(crate) clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub(crate) propagation: u64,
}

/// Changes the attributes of the mount that `tree` is the root of.
///
/// # Errors
/// `ENOSYS` before Linux 5.12.
pub(crate) fn mount_setattr(
    tree: BorrowedFd<'_>,
    recursive: bool,
    attr: MountAttr,
) -> io::Result<()> {
    let mut flags = nix::libc::AT_EMPTY_PATH;
    if recursive {
        flags |= nix::libc::AT_RECURSIVE;
    }
    let raw = nix::libc::mount_attr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: 0,
    };
    // SAFETY: the empty path is a NUL-terminated string, `raw` is a valid `mount_attr` of the size
    // given, and both outlive the call.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of_val(&raw),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Starts `command` in a child that first calls `enter`, after the fork and before the `execve`.
///
/// # Errors
/// What `enter` or the `execve` said.
pub(crate) fn spawn_after(
    mut command: Command,
    enter: &dyn Fn() -> io::Result<()>,
) -> io::Result<Child> {
    struct Borrowed(*const (dyn Fn() -> io::Result<()> + 'static));
    // SAFETY: the pointer is followed only in the child, by the copy of the one thread that
    // called `spawn`; no other thread ever does.
    unsafe impl Send for Borrowed {}
    // SAFETY: as above.
    unsafe impl Sync for Borrowed {}
    impl Borrowed {
        fn call(&self) -> io::Result<()> {
            // SAFETY: `enter` outlives `command`, which ends with this function and is the only
            // one that knows the closure.
            unsafe { (*self.0)() }
        }
    }
    // SAFETY: only the lifetime changes, see `call`.
    let enter: &'static dyn Fn() -> io::Result<()> = unsafe { std::mem::transmute(enter) };
    let enter = Borrowed(enter);
    // SAFETY: as for `fork` above.
    unsafe { command.pre_exec(move || enter.call()) };
    command.spawn()
}

/// The number of the calling process's mount namespace: a namespace can be bound only in one with
/// a smaller number.
///
/// # Errors
/// `ENOTTY` before Linux 6.10.
pub(crate) fn mount_namespace_id() -> io::Result<u64> {
    let namespace = std::fs::File::open("/proc/thread-self/ns/mnt")?;
    let mut id = 0u64;
    // SAFETY: the request writes one `u64` to `id`, which outlives the call.
    unsafe { namespace_id(namespace.as_raw_fd(), &raw mut id) }?;
    Ok(id)
}

// `NS_GET_MNTNS_ID` of `linux/nsfs.h`.
nix::ioctl_read!(namespace_id, 0xb7, 5, u64);

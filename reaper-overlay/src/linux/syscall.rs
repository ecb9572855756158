//! The system calls that have no safe wrapper elsewhere.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, OsStr},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::PathBuf,
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
    #[cfg(tarpaulin)]
    write_coverage();
    // SAFETY: `_exit` has no precondition.
    unsafe { nix::libc::_exit(code) }
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

/// Whether there is a `mount_setattr`.
pub(crate) fn has_mount_setattr() -> bool {
    // SAFETY: the pointers are not followed: a size of 0 is refused before.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_mount_setattr,
            -1,
            c"".as_ptr(),
            0,
            std::ptr::null::<nix::libc::mount_attr>(),
            0usize,
        )
    };
    result == -1 && nix::errno::Errno::last() == nix::errno::Errno::EINVAL
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

/// The number of a mount namespace: a namespace can be bound only in one with a smaller number.
///
/// # Errors
/// `ENOTTY` before Linux 6.10.
pub(crate) fn mount_namespace_id(namespace: BorrowedFd<'_>) -> io::Result<u64> {
    let mut id = 0u64;
    // SAFETY: the request writes one `u64` to `id`, which outlives the call.
    unsafe { namespace_id(namespace.as_raw_fd(), &raw mut id) }?;
    Ok(id)
}

// `NS_GET_MNTNS_ID` of `linux/nsfs.h`.
nix::ioctl_read!(namespace_id, 0xb7, 5, u64);

// Not in libc for every architecture; new calls have one number on all that Rust's standard library
// supports with Linux.
const SYS_STATMOUNT: nix::libc::c_long = 457;

const SYS_LISTMOUNT: nix::libc::c_long = 458;

const SYS_QUOTACTL_FD: nix::libc::c_long = 443;

/// The attributes of a file that only some filesystems have (`struct fsxattr` of `linux/fs.h`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FsXattr {
    /// `FS_XFLAG_*`.
    pub(crate) flags: u32,
    extent_size: u32,
    extents: u32,
    pub(crate) project: u32,
    copy_on_write_extent_size: u32,
    spare: [u8; 8],
}

/// Reads them (ioctl_xfs_fsgetxattr(2), which other filesystems have as well).
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where the filesystem has none.
pub(crate) fn fs_xattr(file: BorrowedFd<'_>) -> io::Result<FsXattr> {
    let mut found = FsXattr::default();
    // SAFETY: the request writes one `fsxattr` to `found`, which outlives the call.
    unsafe { get_fs_xattr(file.as_raw_fd(), &raw mut found) }?;
    Ok(found)
}

/// Replaces them.
///
/// # Errors
/// Those of reading; `EPERM` for who is not the file's owner.
pub(crate) fn set_fs_xattr(file: BorrowedFd<'_>, attributes: &FsXattr) -> io::Result<()> {
    // SAFETY: the request reads one `fsxattr`, which outlives the call.
    unsafe { put_fs_xattr(file.as_raw_fd(), attributes) }?;
    Ok(())
}

// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR` of `linux/fs.h`.
nix::ioctl_read!(get_fs_xattr, b'X', 31, FsXattr);
nix::ioctl_write_ptr!(put_fs_xattr, b'X', 32, FsXattr);

/// The room for what a command of [`quotactl`] reads or writes. The largest that is used here has 80 bytes.
pub(crate) type QuotaData = [u64; 16];

/// Asks for or changes the quota `id` of the filesystem that is on `device`, a path, or without one of the
/// filesystem that `file` is on (quotactl(2)).
///
/// # Errors
/// `ENOSYS` without a device before Linux 5.14, or where the filesystem has no quotas; `ESRCH` where they are
/// off; `ENOENT` where there is no quota of that id.
pub(crate) fn quotactl(
    file: BorrowedFd<'_>,
    device: Option<&CStr>,
    command: u32,
    id: u32,
    data: &mut QuotaData,
) -> io::Result<()> {
    let data = data.as_mut_ptr();
    // SAFETY: `device` is NUL-terminated, `data` has room for what each command of quotactl(2) writes that this
    // crate uses, and both outlive the call.
    let result = unsafe {
        match device {
            Some(device) => {
                nix::libc::syscall(nix::libc::SYS_quotactl, command, device.as_ptr(), id, data)
            }
            None => nix::libc::syscall(SYS_QUOTACTL_FD, file.as_raw_fd(), command, id, data),
        }
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What `statmount` and `listmount` are asked (`struct mnt_id_req`, its first version).
#[repr(C)]
struct MountRequest {
    size: u32,
    spare: u32,
    mount: u64,
    param: u64,
}

impl MountRequest {
    fn new(mount: u64, param: u64) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            spare: 0,
            mount,
            param,
        }
    }
}

/// The unique numbers of all mounts below the calling process's root, in ascending order
/// (listmount(2)).
///
/// # Errors
/// `ENOSYS` before Linux 6.8.
pub(crate) fn list_mounts() -> io::Result<Vec<u64>> {
    const ROOT: u64 = u64::MAX;
    let mut mounts: Vec<u64> = vec![0; 1024];
    let mut found = 0;
    loop {
        let last = mounts[..found].last().copied().unwrap_or(0);
        let request = MountRequest::new(ROOT, last);
        let room = &mut mounts[found..];
        // SAFETY: `request` is a valid `mnt_id_req` of the size that it says, `room` has as many
        // elements as are said, and both outlive the call.
        let result = unsafe {
            nix::libc::syscall(
                SYS_LISTMOUNT,
                &raw const request,
                room.as_mut_ptr(),
                room.len(),
                0,
            )
        };
        let count = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        let is_all = count < room.len();
        found += count;
        if is_all {
            mounts.truncate(found);
            return Ok(mounts);
        }
        mounts.resize(found * 2, 0);
    }
}

/// Where a mount is mounted, by its unique number, as seen from the calling process's root
/// (statmount(2)).
///
/// # Errors
/// `ENOSYS` before Linux 6.8, `ENOENT` for a mount that is gone, `EOVERFLOW` for a path of more
/// than `PATH_MAX` bytes.
pub(crate) fn mount_point(mount: u64) -> io::Result<PathBuf> {
    const MOUNT_POINT: u64 = 0x10;
    /// `struct statmount`: the offsets of its size, of the mount point's place among the strings
    /// behind it, and of the strings.
    const MOUNT_POINT_AT: usize = 108;
    const STRINGS_AT: usize = 512;
    let request = MountRequest::new(mount, MOUNT_POINT);
    let mut answer = vec![0u64; (STRINGS_AT + nix::libc::PATH_MAX as usize) / size_of::<u64>()];
    // SAFETY: `request` is a valid `mnt_id_req` of the size that it says, `answer` has as many
    // bytes as are said and is aligned like `struct statmount`, and both outlive the call.
    let result = unsafe {
        nix::libc::syscall(
            SYS_STATMOUNT,
            &raw const request,
            answer.as_mut_ptr(),
            size_of_val(answer.as_slice()),
            0,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes: Vec<u8> = answer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let corrupt = || io::Error::from(io::ErrorKind::InvalidData);
    let place = bytes[MOUNT_POINT_AT..][..4].try_into().expect("four bytes");
    let start = STRINGS_AT + u32::from_ne_bytes(place) as usize;
    let text = bytes.get(start..).ok_or_else(corrupt)?;
    let text = CStr::from_bytes_until_nul(text).map_err(|_| corrupt())?;
    Ok(OsStr::from_bytes(text.to_bytes()).into())
}

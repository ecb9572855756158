//! Programs in the kernel: loading them, and what they are called.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::instruction::Instruction;
use crate::sys::bpf;

/// The size of a program's name, with the zero at its end (`BPF_OBJ_NAME_LEN`).
const NAME_LENGTH: usize = 16;

/// Loads a program that decides on access to devices. It is gone with its last descriptor and the
/// last cgroup that it is attached to.
///
/// # Errors
/// Those of [`bpf::load`], of which too little memory that may be locked is none.
pub(super) fn load(program: &[Instruction], name: &str) -> io::Result<OwnedFd> {
    // No function of the kernel is called, for which the license would count.
    let license = c"MIT";
    let instructions: Vec<_> = program.iter().map(Instruction::bytes).collect();
    let mut named = [0; NAME_LENGTH];
    for (to, byte) in named.iter_mut().zip(name.bytes().take(NAME_LENGTH - 1)) {
        *to = byte;
    }
    let load = || bpf::load(&instructions, license, named);
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

/// The name of a program.
///
/// # Errors
/// Those of bpf(2).
pub(super) fn name(program: BorrowedFd<'_>) -> io::Result<String> {
    /// Where it is in `struct bpf_prog_info`.
    const NAME: std::ops::Range<usize> = 64..64 + NAME_LENGTH;
    let info = bpf::info(program)?;
    let name = info[NAME].split(|&byte| byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

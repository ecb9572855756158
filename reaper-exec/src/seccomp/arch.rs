//! The architectures of system calls that a machine has, and their numbers.

use std::collections::HashMap;

use reaper_spec::SeccompArch;
use syscalls::{aarch64, arm, powerpc64, riscv64, s390x, x86, x86_64};

/// The numbers of calls by their names.
pub(super) type Numbers = HashMap<&'static str, u32>;

/// The numbers of a table. Its own iterator leaves out the last.
macro_rules! numbers {
    ($table:ident) => {{
        use $table::Sysno;
        let all = 0..=Sysno::last().id().unsigned_abs();
        let known = all.filter_map(|number| Some((Sysno::new(number as usize)?.name(), number)));
        known.collect()
    }};
}

/// An architecture that calls can come from on this machine.
#[derive(Clone, Copy)]
pub(super) struct Arch {
    /// How a spec names it.
    pub(super) name: SeccompArch,
    /// How the kernel names it to a filter (`AUDIT_ARCH_*`). x32 shares it with x86_64.
    pub(super) audit: u32,
    /// The first number that a call of it can have.
    pub(super) first: u32,
    /// The numbers of its calls.
    pub(super) numbers: fn() -> Numbers,
    /// Whether arguments have 32 bits.
    pub(super) narrow: bool,
    /// The call behind which others are, and which of them.
    pub(super) multiplexed: fn(&str) -> Option<(&'static str, u64)>,
}

/// x32 calls have this bit (`__X32_SYSCALL_BIT`).
pub(super) const X32: u32 = 0x4000_0000;

fn no_multiplexer(_: &str) -> Option<(&'static str, u64)> {
    None
}

/// The machine's own architecture first.
#[cfg(target_arch = "x86_64")]
pub(super) const MACHINE: &[Arch] = &[
    Arch {
        name: SeccompArch::X86_64,
        audit: 0xC000_003E,
        first: 0,
        numbers: numbers_of_x86_64,
        narrow: false,
        multiplexed: no_multiplexer,
    },
    Arch {
        name: SeccompArch::X86,
        audit: 0x4000_0003,
        first: 0,
        numbers: || numbers!(x86),
        narrow: true,
        multiplexed: multiplexed_on_x86,
    },
    Arch {
        name: SeccompArch::X32,
        audit: 0xC000_003E,
        first: X32,
        numbers: numbers_of_x32,
        narrow: true,
        multiplexed: no_multiplexer,
    },
];

#[cfg(target_arch = "aarch64")]
pub(super) const MACHINE: &[Arch] = &[
    Arch {
        name: SeccompArch::Aarch64,
        audit: 0xC000_00B7,
        first: 0,
        numbers: || numbers!(aarch64),
        narrow: false,
        multiplexed: no_multiplexer,
    },
    Arch {
        name: SeccompArch::Arm,
        audit: 0x4000_0028,
        first: 0,
        numbers: || numbers!(arm),
        narrow: true,
        multiplexed: no_multiplexer,
    },
];

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const MACHINE: &[Arch] = &[];

#[cfg(target_arch = "x86_64")]
fn numbers_of_x86_64() -> Numbers {
    numbers!(x86_64)
}

/// Whether a machine of any kind has a call of this name: profiles name those of all.
pub(super) fn is_known(name: &str) -> bool {
    name.parse::<x86_64::Sysno>().is_ok()
        || name.parse::<x86::Sysno>().is_ok()
        || name.parse::<aarch64::Sysno>().is_ok()
        || name.parse::<arm::Sysno>().is_ok()
        || name.parse::<riscv64::Sysno>().is_ok()
        || name.parse::<s390x::Sysno>().is_ok()
        || name.parse::<powerpc64::Sysno>().is_ok()
}

/// The first number of the calls that x32 has for itself (arch/x86/entry/syscalls/syscall_64.tbl).
#[cfg(target_arch = "x86_64")]
const FIRST_OF_X32: u32 = 512;

/// They replace those of x86_64 of the same name.
#[cfg(target_arch = "x86_64")]
const OF_X32: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

#[cfg(target_arch = "x86_64")]
fn numbers_of_x32() -> Numbers {
    let mut numbers = numbers_of_x86_64();
    numbers.extend(OF_X32.into_iter().zip(FIRST_OF_X32..));
    numbers.values_mut().for_each(|number| *number |= X32);
    numbers
}

/// On x86 sockets and System V IPC can be reached by one call each, too, whose first argument says
/// which is meant (socketcall(2), ipc(2)).
#[cfg(target_arch = "x86_64")]
fn multiplexed_on_x86(name: &str) -> Option<(&'static str, u64)> {
    const SOCKETCALL: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let mut sockets = (1..).zip(SOCKETCALL);
    let socket = sockets.find(|&(_, call)| call == name);
    if let Some((number, _)) = socket {
        return Some(("socketcall", number));
    }
    let mut ipc = IPC.into_iter();
    let found = ipc.find(|&(call, _)| call == name);
    found.map(|(_, number)| ("ipc", number))
}

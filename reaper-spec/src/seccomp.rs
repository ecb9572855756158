//! The system calls that a container's processes may make (seccomp(2)).

mod parse;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use self::parse::read;
use crate::process::words::words;

/// OCI's `linux.seccomp` (runtime-spec, config-linux.md, "Seccomp"), validated.
///
/// Invariants of every value that this crate reads: no rule is without a name; an index of an
/// argument is at most 5; an errno stands with an action that has one. `Notify` is neither the
/// default action nor that of `write`, and stands only with a `listener_path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// What becomes of a call that no rule has.
    pub default_action: SeccompAction,
    /// The architectures that the rules are for, besides the machine's own.
    pub architectures: Vec<SeccompArch>,
    /// What the filter is loaded with.
    pub flags: Vec<SeccompFlag>,
    /// The Unix socket of the agent that decides on `Notify`.
    pub listener_path: Option<PathBuf>,
    /// What the agent is told, as written.
    pub listener_metadata: Option<String>,
    /// The rules, in order.
    pub rules: Vec<SeccompRule>,
}

/// What becomes of system calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompRule {
    /// The names of the system calls.
    pub names: Vec<String>,
    /// What becomes of them.
    pub action: SeccompAction,
    /// Only with these arguments. All must fit, but where two are about the same argument, one of
    /// them, as with runc.
    pub args: Vec<SeccompArg>,
}

/// A condition on an argument of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompArg {
    /// Which one, from 0 to 5.
    pub index: u8,
    /// What it is compared with; the mask of `MaskedEqual`.
    pub value: u64,
    /// What the masked argument is compared with.
    pub value_two: u64,
    /// How it is compared.
    pub op: SeccompOp,
}

/// What the kernel does instead of a system call, or with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompAction {
    /// Kills the thread.
    KillThread,
    /// Kills the process.
    KillProcess,
    /// Sends SIGSYS.
    Trap,
    /// Fails with this errno.
    Errno(u16),
    /// Asks a tracer, with this message.
    Trace(u16),
    /// Allows it, and logs it.
    Log,
    /// Allows it.
    Allow,
    /// Asks the agent at `listener_path`.
    Notify,
}

impl SeccompAction {
    /// Whether the call is made, or may be.
    pub fn is_permissive(self) -> bool {
        matches!(
            self,
            Self::Allow | Self::Log | Self::Trace(_) | Self::Notify
        )
    }
}

words! {
    /// How an argument is compared, as a number of 64 bits without a sign.
    SeccompOp {
        NotEqual = "SCMP_CMP_NE",
        Less = "SCMP_CMP_LT",
        LessOrEqual = "SCMP_CMP_LE",
        Equal = "SCMP_CMP_EQ",
        GreaterOrEqual = "SCMP_CMP_GE",
        Greater = "SCMP_CMP_GT",
        MaskedEqual = "SCMP_CMP_MASKED_EQ",
    }
}

words! {
    /// What a filter is loaded with (seccomp(2)).
    SeccompFlag {
        Tsync = "SECCOMP_FILTER_FLAG_TSYNC",
        Log = "SECCOMP_FILTER_FLAG_LOG",
        SpecAllow = "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        WaitKillableRecv = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    }
}

words! {
    /// An architecture of system calls. A machine has its own, and some have one or two more.
    SeccompArch {
        X86 = "SCMP_ARCH_X86",
        X86_64 = "SCMP_ARCH_X86_64",
        X32 = "SCMP_ARCH_X32",
        Arm = "SCMP_ARCH_ARM",
        Aarch64 = "SCMP_ARCH_AARCH64",
        Loongarch64 = "SCMP_ARCH_LOONGARCH64",
        M68k = "SCMP_ARCH_M68K",
        Mips = "SCMP_ARCH_MIPS",
        Mips64 = "SCMP_ARCH_MIPS64",
        Mips64n32 = "SCMP_ARCH_MIPS64N32",
        Mipsel = "SCMP_ARCH_MIPSEL",
        Mipsel64 = "SCMP_ARCH_MIPSEL64",
        Mipsel64n32 = "SCMP_ARCH_MIPSEL64N32",
        Parisc = "SCMP_ARCH_PARISC",
        Parisc64 = "SCMP_ARCH_PARISC64",
        Ppc = "SCMP_ARCH_PPC",
        Ppc64 = "SCMP_ARCH_PPC64",
        Ppc64le = "SCMP_ARCH_PPC64LE",
        Riscv64 = "SCMP_ARCH_RISCV64",
        S390 = "SCMP_ARCH_S390",
        S390x = "SCMP_ARCH_S390X",
        Sh = "SCMP_ARCH_SH",
        Sheb = "SCMP_ARCH_SHEB",
    }
}

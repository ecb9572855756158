//! Filters of system calls (seccomp(2)): what a spec says, as a program for the kernel.
//!
//! A filter is compiled in the monitor, once for a container, before it forks; the child only
//! loads it. libseccomp takes tens of milliseconds for the default profile of containerd and its
//! three architectures, which is more than all the rest of a start: here the calls of an
//! architecture become ranges that are searched by halves, in well under a millisecond.

#[cfg(feature = "seccomp")]
mod arch;
#[cfg(feature = "seccomp")]
mod bpf;
#[cfg(feature = "seccomp")]
mod compile;
#[cfg(feature = "seccomp")]
mod projects;
#[cfg(all(test, feature = "seccomp"))]
mod tests;

use std::path::PathBuf;

use reaper_spec::Seccomp;

/// A filter, ready to be loaded.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) program: Vec<libc::sock_filter>,
    /// The flags of seccomp(2).
    pub(crate) flags: libc::c_ulong,
    /// The agent that decides on some calls.
    pub(crate) agent: Option<Agent>,
}

/// The agent that decides on calls with `SCMP_ACT_NOTIFY`.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    /// Its Unix socket.
    pub(crate) socket: PathBuf,
    /// What the spec has for it.
    pub(crate) metadata: Option<String>,
}

/// Why a spec cannot be made a filter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// Reaper was built without them.
    #[error(
        "a filter of system calls is to be made (linux.seccomp), and this program was built without the feature \
         `seccomp` of reaper-exec"
    )]
    #[cfg(not(feature = "seccomp"))]
    NotBuilt,
    /// There is no table of the machine's system calls.
    #[cfg(feature = "seccomp")]
    #[error("no filter can be made for machines of this kind, only for x86_64 and aarch64")]
    Machine,
    /// A call that is to be kept from the process would be allowed.
    #[cfg(feature = "seccomp")]
    #[error("linux.seccomp.syscalls: {0:?} is to be restricted and is no known system call")]
    UnknownCall(String),
    /// More than the kernel takes (`BPF_MAXINSNS`).
    #[cfg(feature = "seccomp")]
    #[error("linux.seccomp: its filter has {0} instructions, the kernel takes 4096")]
    TooLarge(usize),
}

/// Makes the filter of a spec.
#[cfg(feature = "seccomp")]
pub(crate) fn compile(seccomp: &Seccomp) -> Result<Filter, CompileError> {
    compile::compile(seccomp)
}

/// Refuses it: it would be ignored.
#[cfg(not(feature = "seccomp"))]
pub(crate) fn compile(_seccomp: &Seccomp) -> Result<Filter, CompileError> {
    Err(CompileError::NotBuilt)
}

/// Makes the filter that has files keep their projects.
#[cfg(feature = "seccomp")]
pub(crate) fn keep_projects() -> Result<Filter, CompileError> {
    compile::compile(&projects::rules())
}

/// There is none.
#[cfg(not(feature = "seccomp"))]
pub(crate) fn keep_projects() -> Result<Filter, CompileError> {
    Err(CompileError::NotBuilt)
}

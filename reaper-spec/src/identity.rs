//! What a process is called across pid reuse and reboots.

use serde::{Deserialize, Serialize};

/// A process, named so that a reused pid is never taken for it.
///
/// A pid alone names a process only until its parent has reaped it. With the start time it is
/// unique within one boot, with the boot id it is unique for good.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The process id in the host's pid namespace.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat` (proc(5)): clock ticks from boot to the process's start.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id` at the time.
    pub boot_id: String,
}

//! How the kernel schedules this process.

use std::io;

use nix::sys::personality::{self, Persona};

use crate::sys;

/// Bits of processors, of as many as sched_setaffinity(2) may have to tell apart.
type Processors = [u64; 128];

/// Gives this process the nice value 0 and the policy, the I/O priority, the processors and the
/// personality that processes have from the start, as far as it may: a lower nice value needs
/// rights.
pub(crate) fn reset() {
    const NO_IO_PRIORITY: i32 = 0;
    const EACH: Processors = [u64::MAX; 128];
    // An error leaves what was.
    let _ = sys::set_ordinary_policy();
    let _ = rustix::process::setpriority_process(None, 0);
    let _ = sys::set_io_priority(NO_IO_PRIORITY);
    // Processors beyond those that there are do not matter (sched_setaffinity(2)).
    let _ = sys::set_processors(&EACH);
    let _ = set_personality(0);
}

/// Has this process run on these processors.
pub(crate) fn set_affinity(processors: &[u32]) -> io::Result<()> {
    let mut set: Processors = [0; 128];
    for &processor in processors {
        let word = set.get_mut(processor as usize / 64);
        let word = word.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        *word |= 1 << (processor % 64);
    }
    sys::set_processors(&set)
}

/// Sets the execution domain of this process.
pub(crate) fn set_personality(domain: u32) -> io::Result<()> {
    let domain = Persona::from_bits_retain(domain.cast_signed());
    Ok(personality::set(domain).map(drop)?)
}

//! Attaching the program of a container's device rules to its cgroup of version 2.

use std::{fs::File, io, os::fd::AsFd as _, path::Path};

use super::{instruction::Instruction, kernel};
use crate::{cgroup::error::Error, sys::bpf};

/// What the programs are called that are attached here, among those of others.
pub(super) const PROGRAM: &str = "reaper_devices";

/// Attaches a program.
pub(super) fn attach(cgroup: &Path, program: &[Instruction]) -> Result<(), Error> {
    let program = kernel::load(program, PROGRAM).map_err(failed("load a program for", cgroup))?;
    let folder = File::open(cgroup).map_err(failed("open", cgroup))?;
    bpf::attach(folder.as_fd(), program.as_fd()).map_err(failed("attach a program to", cgroup))
}

/// Detaches what an earlier container has attached to a cgroup that stayed. A cgroup that is removed
/// takes its programs along.
pub(in crate::cgroup) fn detach(cgroup: &Path) -> Result<(), Error> {
    let Ok(folder) = File::open(cgroup) else {
        return Ok(());
    };
    let failed = |error| failed("detach a program from", cgroup)(error);
    let attached = match bpf::attached(folder.as_fd()) {
        // A kernel without programs, or a user that can have attached none.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOSYS | libc::EINVAL | libc::EPERM)
            ) =>
        {
            return Ok(());
        }
        attached => attached.map_err(failed)?,
    };
    for id in attached {
        // It may have been detached by another program meanwhile.
        let Ok(program) = bpf::open(id) else {
            continue;
        };
        if kernel::name(program.as_fd()).map_err(failed)? == PROGRAM {
            bpf::detach(folder.as_fd(), program.as_fd()).map_err(failed)?;
        }
    }
    Ok(())
}

fn failed(operation: &'static str, cgroup: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = cgroup.to_owned();
    move |source| Error::Devices {
        operation,
        path,
        source,
    }
}

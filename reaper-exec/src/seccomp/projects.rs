//! What keeps the projects of files: the calls by which their owner could leave the quota of a project.
//!
//! Outside of user namespaces the kernel lets the owner of a file change its project (fs/file_attr.c,
//! `fileattr_set_prepare`), and have a directory hand on none. A filter sees the number of an ioctl(2) and not what it
//! points to, so all that these three set is refused, as a process without the rights would be; reading is not.

use reaper_spec::{Seccomp, SeccompAction, SeccompArg, SeccompFlag, SeccompOp, SeccompRule};

use super::arch::MACHINE;

/// `FS_IOC_FSSETXATTR`; `FS_IOC_SETFLAGS`, by which a directory hands on its project no more; the latter as programs of
/// 32 bits call it.
const COMMANDS: [u64; 3] = [0x401c_5820, 0x4008_6602, 0x4004_6602];

/// Of the command the kernel takes the lower half.
const LOWER_HALF: u64 = 0xffff_ffff;

pub(super) fn rules() -> Seccomp {
    let action = SeccompAction::Errno(libc::EPERM.unsigned_abs() as u16);
    let rule = |name: &str, args| SeccompRule {
        names: vec![name.to_owned()],
        action,
        args,
    };
    let ioctl = |command| {
        let command = SeccompArg {
            index: 1,
            value: LOWER_HALF,
            value_two: command,
            op: SeccompOp::MaskedEqual,
        };
        rule("ioctl", vec![command])
    };
    // Linux 6.17; its attributes are in memory, too.
    let by_call = rule("file_setattr", Vec::new());
    Seccomp {
        default_action: SeccompAction::Allow,
        architectures: MACHINE.iter().map(|arch| arch.name).collect(),
        // Before Linux 5.16 a filter would have the processor speculate less, which costs more than the filter.
        flags: vec![SeccompFlag::SpecAllow],
        listener_path: None,
        listener_metadata: None,
        rules: COMMANDS.map(ioctl).into_iter().chain([by_call]).collect(),
    }
}

//! What to do about a trial that failed.

use nix::libc;

use super::{super::interfaces::is_filtered, steps::Failure};

/// What to do, given the step, its failure, and what the kernel said meanwhile.
pub(super) fn of(step: &str, failure: &Failure, said: &[String]) -> String {
    let said = said.join("\n").to_lowercase();
    choose(step, failure, &said, is_filtered()).to_owned()
}

fn choose(step: &str, failure: &Failure, said: &str, filtered: bool) -> &'static str {
    const MORE: &str = "see what `reaper-runtime --debug run -- true` and `dmesg` say, and \
                        docs/troubleshooting.md; `reaper-runtime doctor --json` is for a report";
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["apparmor=\"denied\"", "avc:", "selinux:", "landlock"]) {
        return "a security module of this machine refused it: allow it in the profile or policy \
                that the kernel names";
    }
    if filtered && matches!(failure.errno, Some(libc::ENOSYS | libc::EPERM)) {
        return "a seccomp filter is in force around this program: start it, and containerd, without, or \
                allow there what was refused";
    }
    // By the step: what the kernel says of overlays meanwhile can be of another program's.
    let overlay = ["mount the overlay", "make a whiteout"];
    if overlay.iter().any(|what| failure.message.contains(what)) {
        return "the kernel refuses the overlay, for the reason that it names; most often the filesystem of the overlay base can \
                hold no upper layer (another overlay, NFS and FAT cannot): set `base` in the configuration's \
                [overlay] to a directory on a tmpfs or a local disk (ext4, xfs, btrfs), or \
                `enabled = false`";
    }
    match failure.errno {
        Some(libc::ETIMEDOUT) => {
            "a filesystem or a device does not answer: see `dmesg`, and which processes are in state \
             D (`ps -eo pid,stat,wchan:30,args`)"
        }
        Some(libc::EROFS) => {
            "the folder is on a read-only filesystem: set `state_root`, and `base` in [overlay], of \
             the configuration to directories that can be written to"
        }
        Some(libc::ENOSPC) => {
            "make room on the filesystem that is named, or raise the limit: `sysctl \
             user.max_mnt_namespaces user.max_user_namespaces fs.inotify.max_user_watches`"
        }
        Some(libc::EACCES | libc::EPERM) if !nix::unistd::geteuid().is_root() => {
            "use sudo, or see docs/overlay.md, `Without root`"
        }
        Some(libc::EACCES) if step.starts_with("start") => {
            "the program, or a folder above it, may not be executed: see its mode, and whether its \
             filesystem is mounted noexec"
        }
        _ => MORE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_prefers_kernel_log_over_errno() {
        let choose_for = |message: &str, errno, said, filtered| {
            let failure = Failure {
                message: message.to_owned(),
                errno: Some(errno),
            };
            choose("make a scope and a container", &failure, said, filtered)
        };
        let choose = |errno, said, filtered| choose_for("", errno, said, filtered);
        let denied = "audit: type=1400 apparmor=\"denied\" operation=\"mount\"";
        assert!(choose(libc::EACCES, denied, false).contains("security module"));
        let upper = "overlayfs: filesystem on /x not supported as upperdir";
        let mount = "mount the overlay over /: Invalid argument";
        assert!(choose_for(mount, libc::EINVAL, upper, false).contains("upper layer"));
        assert!(
            choose(libc::EPERM, upper, true).contains("seccomp"),
            "another's overlay"
        );
        assert!(choose(libc::EPERM, "", true).contains("seccomp"));
        assert!(choose(libc::EROFS, "", false).contains("state_root"));
        assert!(choose(libc::ETIMEDOUT, "", false).contains("does not answer"));
        assert!(choose(libc::EIO, "", false).contains("--debug"));
    }
}

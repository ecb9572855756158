//! What runtimes' messages mean.

use nix::errno::Errno;

use crate::protocol::Failure;

/// The failure of a command that was to make or start a process of `program`. A program that
/// cannot be executed is told apart by the runtimes' words for it, as other engines do: there is
/// no other way to know.
pub(super) fn failure(step: String, message: String, program: &str) -> Failure {
    match exec_errno(&message) {
        Some(errno) => Failure::Execve {
            program: program.to_owned(),
            message,
            errno: errno as i32,
        },
        None => Failure::Setup {
            step,
            message,
            errno: None,
        },
    }
}

fn exec_errno(message: &str) -> Option<Errno> {
    let message = message.to_lowercase();
    if message.contains("exec format error") {
        return Some(Errno::ENOEXEC);
    }
    // runc, crun, crun for a path, Reaper.
    let about_the_program = ["exec: \"", "executable file", "open executable"]
        .iter()
        .any(|words| message.contains(words))
        || message.starts_with("exec ") && !message.starts_with("exec failed");
    if !about_the_program {
        return None;
    }
    let means = [
        ("not found", Errno::ENOENT),
        ("no such file or directory", Errno::ENOENT),
        ("permission denied", Errno::EACCES),
        ("is a directory", Errno::EACCES),
    ];
    // crun says "not found" also of what may not be executed.
    let denied = message
        .contains("permission denied")
        .then_some(Errno::EACCES);
    denied.or_else(|| {
        means
            .iter()
            .find_map(|(words, errno)| message.contains(words).then_some(*errno))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_cannot_be_executed_are_told_apart() {
        for (message, errno) in [
            (
                "runc create failed: unable to start container process: exec: \"/nope\": stat /nope: no such file or directory",
                Some(Errno::ENOENT),
            ),
            (
                "exec failed: unable to start container process: exec: \"nope\": executable file not found in $PATH",
                Some(Errno::ENOENT),
            ),
            (
                "runc create failed: unable to start container process: exec: \"/etc\": permission denied",
                Some(Errno::EACCES),
            ),
            (
                "executable file `/nope` not found in $PATH: No such file or directory",
                Some(Errno::ENOENT),
            ),
            (
                "executable file `/etc/passwd` not found in $PATH: Permission denied",
                Some(Errno::EACCES),
            ),
            ("exec /nope: No such file or directory", Some(Errno::ENOENT)),
            ("exec /x: exec format error", Some(Errno::ENOEXEC)),
            (
                "runc create failed: unable to start container process: error mounting \"/x\" to rootfs at \"/x\": stat /x: no such file or directory",
                None,
            ),
            ("container does not exist", None),
        ] {
            assert_eq!(exec_errno(message), errno, "{message}");
        }
    }
}

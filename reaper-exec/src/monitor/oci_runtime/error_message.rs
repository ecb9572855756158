//! What the error messages of runtimes mean.
//!
//! Runtimes report all failures by exit code 1 and a text. Engines want to know whether the program
//! could be executed, so the texts of runc and crun for that are recognised.

use std::{fs, path::Path};

use nix::errno::Errno;
use reaper_spec::ExitStatus;
use serde::Deserialize;

use crate::protocol::Failure;

/// The failure of a command that should have created or started a process of `program`:
/// [`Failure::Execve`] if its message says that the program cannot be executed.
pub(crate) fn failure(step: String, message: String, program: &str) -> Failure {
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
    // The texts of runc, crun, crun for a path, and Reaper.
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
    // crun says "not found" also of a file that may not be executed.
    let denied = message
        .contains("permission denied")
        .then_some(Errno::EACCES);
    denied.or_else(|| {
        means
            .iter()
            .find_map(|(words, errno)| message.contains(words).then_some(*errno))
    })
}

#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// The last error in the log of a failed command. The log is removed.
pub(crate) fn last_log_error(log: &Path, status: &ExitStatus) -> String {
    let text = fs::read(log).unwrap_or_default();
    let _ = fs::remove_file(log);
    let text = String::from_utf8_lossy(&text);
    let said = text.lines().rev().find_map(|line| {
        let line: Line = serde_json::from_str(line).ok()?;
        matches!(line.level.as_str(), "error" | "fatal" | "panic").then_some(line.msg)
    });
    said.unwrap_or_else(|| match status {
        ExitStatus::Signaled { signal, .. } => format!("it was ended by signal {signal}"),
        other => format!("it ended with {} and without a reason", other.code()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execve_errors_are_recognised_in_runtime_messages() {
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

    fn last_log_error_of(log: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), log).unwrap();
        last_log_error(file.path(), &ExitStatus::Exited { code: 1 })
    }

    #[test]
    fn last_error_of_runtime_log_is_the_reason() {
        let log = concat!(
            r#"{"level":"error","msg":"first","time":"t"}"#,
            "\n",
            r#"{"msg":"runc create failed: no such thing","level":"error","time":"t"}"#,
            "\n",
            r#"{"level":"warning","msg":"unrelated"}"#,
            "\nnot json\n",
        );
        assert_eq!(last_log_error_of(log), "runc create failed: no such thing");
    }

    #[test]
    fn command_without_a_log_has_a_reason() {
        assert_eq!(
            last_log_error_of(""),
            "it ended with 1 and without a reason"
        );
    }
}

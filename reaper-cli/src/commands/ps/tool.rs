//! What ps(1) prints of the processes of a container, with the caller's options, as runc does it.

use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// The head and the lines of the processes `pids`, of what `ps OPTIONS` prints.
///
/// # Errors
/// ps(1) cannot be run, refuses the options, or its output has no column PID.
pub(super) fn lines(options: &[String], pids: &[u32]) -> Result<Vec<String>> {
    let output = Command::new("ps")
        .args(options)
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io(
            "run ps(1), which prints what its options say: install it, or leave them out",
        ))?;
    let refused = |problem: String| Error::Option {
        option: "the options of ps(1)",
        problem,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty());
        return Err(refused(said.unwrap_or("it failed").trim().to_owned()));
    }
    of_processes(&String::from_utf8_lossy(&output.stdout), pids).ok_or_else(|| {
        refused("with them it prints no column PID, by which processes are told apart".to_owned())
    })
}

/// `None` without a column PID.
fn of_processes(text: &str, pids: &[u32]) -> Option<Vec<String>> {
    let mut lines = text.lines();
    let head = lines.next()?;
    let column = head.split_whitespace().position(|name| name == "PID")?;
    let is_wanted = |line: &&str| {
        let pid = line.split_whitespace().nth(column);
        pid.and_then(|pid| pid.parse().ok())
            .is_some_and(|pid| pids.contains(&pid))
    };
    let wanted = lines.filter(is_wanted).map(str::to_owned);
    Some([head.to_owned()].into_iter().chain(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_column_of_pids() {
        let text = "UID  PID PPID\n7  42 1\n42  7 1\n";
        assert_eq!(
            of_processes(text, &[42]).unwrap(),
            ["UID  PID PPID", "7  42 1"]
        );
        assert_eq!(of_processes("UID COMMAND\n7 42\n", &[42]), None);
    }
}

//! Whether containerd knows the runtime.
//!
//! What counts is the containerd that runs: another version may lie in the PATH, and k3s and others
//! start theirs with a configuration elsewhere. So the processes are looked at, and the program of each
//! is asked for the configuration that it was started with.

mod daemon;
mod handlers;

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

pub(crate) use self::{
    daemon::Daemon,
    handlers::{PLUGINS, RUNTIME_TYPE, runtimes},
};
use super::finding::CheckResult;

/// The shim's program.
pub(super) const SHIM: &str = "containerd-shim-reaper-v2";

pub(super) fn examine() -> Vec<CheckResult> {
    let path = env::var_os("PATH").unwrap_or_default();
    examine_at(Path::new("/proc"), &path)
}

/// The same, with the processes of `proc`, and what is installed in `path`.
fn examine_at(proc: &Path, path: &OsStr) -> Vec<CheckResult> {
    let mut daemons = daemon::running(proc);
    if daemons.is_empty() {
        daemons.extend(daemon::installed(path));
    }
    if daemons.is_empty() {
        let found = "neither runs nor is installed here: only this program runs containers";
        return vec![CheckResult::good("containerd", found)];
    }
    daemons.iter().flat_map(of_daemon).collect()
}

/// Those that run.
pub(super) fn running() -> Vec<Daemon> {
    daemon::running(Path::new("/proc"))
}

/// The one that a shell would start.
pub(super) fn installed() -> Option<Daemon> {
    daemon::installed(&env::var_os("PATH").unwrap_or_default())
}

/// Whether it is one that the shim is made for, finds the shim, and has a handler for it.
pub(super) fn of_daemon(daemon: &Daemon) -> Vec<CheckResult> {
    let mut findings = vec![version(daemon), shim(daemon)];
    match daemon.ask(&["config", "dump"]) {
        Ok(config) => findings.extend(handlers::judge(&config, daemon)),
        Err(problem) => findings.push(CheckResult::warning(
            "handler",
            format!("{daemon} does not print its configuration: {problem}"),
            format!("see what `{} config dump` says", daemon.command_line()),
        )),
    }
    findings
}

fn version(daemon: &Daemon) -> CheckResult {
    match daemon.ask(&["--version"]) {
        Ok(answer) => of_version(&answer, daemon),
        Err(problem) => CheckResult::warning(
            "containerd",
            format!("{daemon} does not tell its version: {problem}"),
            format!("see what `{} --version` says", daemon.command_line()),
        ),
    }
}

/// `containerd NAME VERSION COMMIT`
fn of_version(answer: &str, daemon: &Daemon) -> CheckResult {
    let version = answer.split_whitespace().nth(2).unwrap_or_default();
    match numbers(answer) {
        Some(numbers) if numbers >= (1, 6) => {
            CheckResult::good("containerd", format!("{version}: {daemon}"))
        }
        Some(_) => CheckResult::warning(
            "containerd",
            format!("{version}: {daemon}"),
            "the shim needs 1.6",
        ),
        _ => CheckResult::warning(
            "containerd",
            format!("an unknown version: {}: {daemon}", answer.trim()),
            "the shim is made for 1.6, 1.7 and 2.x",
        ),
    }
}

fn numbers(answer: &str) -> Option<(u32, u32)> {
    let version = answer.split_whitespace().nth(2)?;
    let mut numbers = version
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// The first two numbers of its version, if it tells.
pub(super) fn version_of(daemon: &Daemon) -> Option<(u32, u32)> {
    numbers(&daemon.ask(&["--version"]).ok()?)
}

/// Whether the shim is where containerd looks for it: in its PATH, and beside its program.
fn shim(daemon: &Daemon) -> CheckResult {
    let found: Option<PathBuf> = daemon
        .search_path()
        .into_iter()
        .map(|dir| dir.join(SHIM))
        .find(|file| file.is_file());
    match found {
        Some(file) => CheckResult::good("shim", file.display().to_string()),
        None => CheckResult::warning(
            "shim",
            format!("no {SHIM} in the PATH of {daemon}"),
            format!(
                "install it where containerd finds it: `install -m 755 {SHIM} /usr/local/bin/`"
            ),
        ),
    }
}

#[cfg(test)]
mod tests;

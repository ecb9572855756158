//! What /proc says about processes.

use std::{collections::BTreeMap, fs, process};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

/// A process as it was when it was looked at. Its start time tells it from a later one with the
/// same pid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Its session.
    pub session: u32,
    /// Its state: `R`, `S`, `Z`…
    pub state: char,
    /// The name of its program, at most 15 bytes.
    pub name: String,
    /// When it started, in ticks since the boot.
    pub started: u64,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: u64,
    /// Private anonymous memory, KiB.
    pub anonymous_kib: u64,
    /// Voluntary context switches of all its threads.
    pub voluntary_switches: u64,
}

impl Process {
    /// The process with that pid, unless there is none.
    pub fn find(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            state: fields.first()?.chars().next()?,
            name: name.to_owned(),
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether it has not ended yet. A zombie has.
    pub fn is_alive(&self) -> bool {
        Self::find(self.pid)
            .is_some_and(|now| now.started == self.started && !matches!(now.state, 'Z' | 'X'))
    }

    /// Its arguments, separated by spaces.
    pub fn command_line(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .replace('\0', " ")
            .trim_end()
            .to_owned()
    }

    /// Sends it a signal. One that has ended already gets none.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may still end in between, and then there is nothing left to do either.
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
        }
    }

    /// What it holds now.
    pub fn figures(&self) -> Figures {
        let descriptors =
            fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, |entries| entries.count());
        let status = self.file("status");
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid))
            .into_iter()
            .flatten();
        let voluntary_switches = tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
            .map(|status| number(&status, "voluntary_ctxt_switches:"))
            .sum();
        Figures {
            descriptors,
            threads: number(&status, "Threads:"),
            anonymous_kib: number(&self.file("smaps_rollup"), "Anonymous:"),
            voluntary_switches,
        }
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap_or_default()
    }
}

/// The number after a line's label.
fn number(text: &str, label: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(label))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// All processes.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("read /proc");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Process::find)
        .collect()
}

/// All children of a process.
pub fn children(pid: u32) -> Vec<Process> {
    all()
        .into_iter()
        .filter(|process| process.parent == pid)
        .collect()
}

/// All that comes from a process, zombies too, parents first.
pub fn descendants(pid: u32) -> Vec<Process> {
    let mut by_parent: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    for process in all() {
        by_parent.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for process in by_parent.remove(&parent).unwrap_or_default() {
            parents.push(process.pid);
            found.push(process);
        }
    }
    found
}

/// Reaps the orphans that this process was given and that have ended, leaving alone `known`,
/// which somebody else here waits for.
pub fn reap_orphans(known: &[u32]) {
    for process in children(process::id()) {
        if process.state == 'Z' && !known.contains(&process.pid) {
            // Lost only to somebody else who reaps it.
            let _ = waitpid(
                Pid::from_raw(process.pid.cast_signed()),
                Some(WaitPidFlag::WNOHANG),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_found_below_its_parent() {
        let me = Process::find(process::id()).expect("this process");
        assert!(me.is_alive());
        assert!(me.figures().descriptors >= 3);
        // Its state may be another by now.
        let is_me = |seen: &Process| (seen.pid, seen.started) == (me.pid, me.started);
        assert!(descendants(me.parent).iter().any(is_me));
    }

    #[test]
    fn a_child_that_has_ended_is_not_alive() {
        let mut child = process::Command::new("true").spawn().expect("start true");
        let seen = Process::find(child.id()).expect("the child, running or a zombie");
        child.wait().expect("wait for true");
        assert!(!seen.is_alive());
    }
}

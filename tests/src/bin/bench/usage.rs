//! What a shim and its monitors use.

use std::{fs, os::unix::fs::MetadataExt, path::Path, thread, time::Duration};

use reaper_tests::procfs::{self, Process};

/// What a shim and its monitors use, added up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) anonymous_kib: u64,
    pub(crate) threads: u64,
    pub(crate) switches: u64,
    pub(crate) read_write_calls: u64,
    pub(crate) cpu_ticks: u64,
}

/// Waits until a shim is idle: pools keep a thread that has nothing to do for some seconds (ten by
/// Tokio's default).
pub(crate) fn settle() {
    thread::sleep(Duration::from_secs(12));
}

/// The shim and those below it that are the same program: Reaper's monitors. Workloads are not.
pub(crate) fn processes(shim: &Process) -> Vec<u32> {
    // Not by its name: a monitor executes it on a mount of its own.
    let program = |pid: u32| {
        let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((file.dev(), file.ino()))
    };
    let own = program(shim.pid);
    let below = procfs::descendants(shim.pid)
        .into_iter()
        .map(|process| process.pid);
    std::iter::once(shim.pid)
        .chain(below.filter(|&pid| program(pid) == own))
        .collect()
}

/// What the shim and its monitors use now.
pub(crate) fn of(shim: &Process) -> Usage {
    let mut sum = Usage::default();
    for pid in processes(shim) {
        let dir = Path::new("/proc").join(pid.to_string());
        sum.anonymous_kib += value(&read(&dir.join("smaps_rollup")), "Anonymous:");
        let io = read(&dir.join("io"));
        sum.read_write_calls += value(&io, "syscr:") + value(&io, "syscw:");
        sum.cpu_ticks += cpu_ticks(&read(&dir.join("stat")));
        for task in fs::read_dir(dir.join("task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let status = read(&task.path().join("status"));
            sum.threads += 1;
            sum.switches += value(&status, "voluntary_ctxt_switches:")
                + value(&status, "nonvoluntary_ctxt_switches:");
        }
    }
    sum
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

fn value(text: &str, label: &str) -> u64 {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(label)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or_else(|| panic!("no {label} in {text}"))
}

/// User and system time of a line of `/proc/PID/stat`.
fn cpu_ticks(line: &str) -> u64 {
    let after_name = line.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum()
}

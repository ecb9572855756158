//! How fast a workload's output reaches its reader.

use std::{
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Effort,
    bundle::BUSYBOX,
    report::{Report, Samples, Unit},
    rig::{Rig, Shim},
    task::{Pod, make_fifo},
    usage,
};

/// What a workload writes, MiB.
const MEBIBYTES: usize = 1024;

pub(crate) fn measure(effort: Effort) -> Report {
    let rig = Rig::new();
    let pods = Shim::BOTH.map(|shim| Pod::start(&rig, shim));
    let [mut speeds, mut calls, mut cpu]: [[Samples; 2]; 3] = Default::default();
    for _ in 0..effort.pick(7, 1) {
        for (index, pod) in pods.iter().enumerate() {
            let fifo = rig.dir().join(rig.id("stdout"));
            let (duration, before, after) = pass(pod, &fifo);
            speeds[index].push(MEBIBYTES as f64 / 1024.0 / duration.as_secs_f64());
            calls[index].push((after.read_write_calls - before.read_write_calls) as f64);
            // A tick is 10 ms wherever /proc is read by user programs.
            cpu[index].push((after.cpu_ticks - before.cpu_ticks) as f64 * 10.0);
        }
    }
    pods.into_iter().for_each(Pod::stop);
    let mut report = Report::new("1 GiB from a workload's standard output to a reader of the FIFO");
    for (index, shim) in Shim::BOTH.into_iter().enumerate() {
        let name = shim.name();
        report.figure(name, Unit::GibibytesPerSecond, speeds[index].clone());
        let what = format!("{name}: read and write calls of its own meanwhile");
        report.figure(&what, Unit::Count, calls[index].clone());
        let what = format!("{name}: CPU time of its own meanwhile");
        report.figure(&what, Unit::Milliseconds, cpu[index].clone());
    }
    let [reaper, runc] = &speeds;
    report.ratio("throughput, Reaper / runc's shim", reaper, runc);
    report
}

/// Runs a workload that writes, and reads what it writes.
fn pass(pod: &Pod<'_>, fifo: &Path) -> (Duration, usage::Usage, usage::Usage) {
    let mut output = make_fifo(fifo);
    // It stays until it is killed: the kernel adds the calls of children that were waited for to
    // those of the parent.
    let script =
        format!("{BUSYBOX} dd if=/dev/zero bs=1M count={MEBIBYTES}; exec {BUSYBOX} sleep 1000000");
    let task = pod.task(&[BUSYBOX, "sh", "-c", &script], Some(fifo));
    let before = usage::of(&pod.process);
    let start = Instant::now();
    task.start();
    let mut buffer = vec![0; 1 << 20];
    let mut left = MEBIBYTES << 20;
    while left > 0 {
        left -= output.read(&mut buffer).expect("read the FIFO");
    }
    let duration = start.elapsed();
    let after = usage::of(&pod.process);
    // The shim may wait for its reader to be done with the rest.
    drop(output);
    task.kill_and_delete();
    (duration, before, after)
}

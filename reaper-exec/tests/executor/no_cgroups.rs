//! Containers without cgroups, whose processes are found as descendants of their monitor.

use std::{fs, time::Duration};

use nix::{
    sys::signal::{Signal as NixSignal, kill},
    unistd::Pid,
};
use reaper_exec::{Executor as _, Signal};
use reaper_spec::{CgroupMode, ContainerId};

use crate::{
    output::Output,
    rig::{Rig, cases, within_a_minute},
};

cases! {
    figures_without_cgroups_include_what_has_exited,
    figures_are_the_same_where_the_monitor_does_not_answer,
    orphans_without_cgroups_are_listed_paused_and_signalled,
}

/// A container without cgroups that runs a script.
async fn start(rig: &Rig, id: &str, script: &str) -> (ContainerId, Output) {
    let (mut new, output) = rig.shell(id, script);
    new.monitor.cgroups = CgroupMode::Off;
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    (id, output)
}

/// The processes of a container.
async fn pids(rig: &Rig, id: &ContainerId) -> Vec<u32> {
    let listed = rig.engine.executor().pids(id).await.unwrap();
    listed.into_iter().map(|process| process.pid).collect()
}

/// What `burn` uses, in nanoseconds.
const BURNT: u64 = 200_000_000;

/// Has a subshell use 0.2 s of CPU time, of which its `/proc/PID/stat` counts hundredths, and leave its pid in
/// `$1`.
const BURN: &str = "burn() { while read -r line </proc/self/stat; set -- $line; pid=$1
    [ $((${14} + ${15})) -lt 20 ]; do :; done; }";

async fn figures_without_cgroups_include_what_has_exited(rig: &Rig) {
    // One whose parent waits for it, and one whose parent has exited.
    let script = format!(
        "{BURN}
        (burn); echo waited
        ((burn; echo $pid; exec sleep 1000) &)
        exec sleep 1000"
    );
    let (id, mut output) = start(rig, "figures", &script).await;
    let mut last = 0;
    let mut assert_at_least = async |expected: u64| {
        let stats = rig.engine.executor().stats(&id).await.unwrap();
        let now = stats.cpu_user_ns + stats.cpu_system_ns;
        assert!(now >= expected && now >= last, "{now}, {last} before");
        last = now;
    };
    assert_eq!(output.line(), "waited");
    assert_at_least(BURNT).await;
    let orphan: u32 = output.line().parse().unwrap();
    assert_at_least(2 * BURNT).await;

    let script = format!("kill -9 {orphan}; {BURN}\nburn");
    let (exec, _output) = rig.exec_shell(&id, "burner", &script).await;
    within_a_minute(rig.exit_code(&exec)).await;
    within_a_minute(async {
        while pids(rig, &id).await.contains(&orphan) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_at_least(3 * BURNT).await;
    rig.engine.delete(&id, true).await.unwrap();
}

/// Consumers take a falling counter for a restart.
async fn figures_are_the_same_where_the_monitor_does_not_answer(rig: &Rig) {
    let script = format!("{BURN}\n(burn); echo waited; exec sleep 1000");
    let (id, mut output) = start(rig, "silent", &script).await;
    assert_eq!(output.line(), "waited");
    let executor = rig.engine.executor();
    let cpu = async || {
        let stats = executor.stats(&id).await.unwrap();
        (stats.cpu_user_ns, stats.cpu_system_ns)
    };
    let answered = cpu().await;
    let monitor = rig.engine.state(&id).await.unwrap().monitor.unwrap();
    let monitor = Pid::from_raw(monitor.pid.try_into().unwrap());
    kill(monitor, NixSignal::SIGSTOP).unwrap();
    assert_eq!(cpu().await, answered);
    kill(monitor, NixSignal::SIGCONT).unwrap();
    rig.engine.delete(&id, true).await.unwrap();
}

/// Whether a process was stopped by a signal, or waits for a child that was stopped before it has executed a
/// program (vfork(2)), which some shells' children are.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.starts_with(['T', 'D'])
}

async fn orphans_without_cgroups_are_listed_paused_and_signalled(rig: &Rig) {
    // Shells write of each child that a signal has ended.
    let script = "
        exec 2>/dev/null
        ((read -r pid rest </proc/self/stat; trap 'echo ended; exit' TERM; echo $pid
            while :; do sleep 0.01; done) &)
        trap '' TERM
        read -r pid rest </proc/self/stat; echo $pid
        while :; do sleep 0.01; done";
    let (id, mut output) = start(rig, "orphans", script).await;
    let both: [u32; 2] = [output.line(), output.line()].map(|line| line.parse().unwrap());
    let listed = pids(rig, &id).await;
    assert!(both.iter().all(|pid| listed.contains(pid)), "{listed:?}");

    rig.engine.pause(&id).await.unwrap();
    // The signal was sent, and takes effect when the process next runs.
    within_a_minute(async {
        while !both.into_iter().all(is_stopped) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    rig.engine.resume(&id).await.unwrap();
    rig.engine.kill(&id, Signal::TERM, true).await.unwrap();
    assert_eq!(output.line(), "ended");
    rig.engine.delete(&id, true).await.unwrap();
}

//! The end of a container whose processes do all they can to stay.

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{SigHandler, Signal, signal},
    unistd::{ForkResult, fork, setsid},
};
use reaper_exec::Executor as _;
use reaper_spec::{CgroupMode, Resources};
use serde_json::json;

use crate::rig::{Rig, cases};

cases! {
    a_fork_bomb_is_gone_by_the_cgroup_within_a_second,
    a_fork_bomb_is_gone_by_the_tree_within_five_seconds,
}

/// How many processes there are at any time.
const COUNT: u32 = 2000;

/// How long the processes of a bomb that was not ended stay, each of which lives a part of that.
const LONGEST: Duration = Duration::from_secs(240);

/// Forks `count` processes, none of which heeds SIGTERM. Each leaves its session, forks another one and
/// exits, again and again. There are never more than that and as many that are about to exit.
pub(crate) fn explode(count: u32) -> ! {
    // SAFETY: no handler of this process can run.
    #[allow(unsafe_code)]
    unsafe {
        signal(Signal::SIGTERM, SigHandler::SigIgn).unwrap();
        // What this process has forked is not its to wait for.
        signal(Signal::SIGCHLD, SigHandler::SigIgn).unwrap();
    }
    let (mut armed, fuse) = std::io::pipe().unwrap();
    for number in 0..count {
        if is_child() {
            // On a slow machine those that are there would leave no time for forking the others.
            drop(fuse);
            let _ = armed.read(&mut [0]);
            flee(number, Instant::now() + LONGEST);
        }
    }
    println!("armed");
    drop(fuse);
    std::thread::sleep(LONGEST);
    std::process::exit(0)
}

fn is_child() -> bool {
    // SAFETY: this process has one thread.
    #[allow(unsafe_code)]
    let forked = unsafe { fork() };
    // Without memory, or at a limit, it is one less.
    matches!(forked, Ok(ForkResult::Child))
}

fn flee(number: u32, end: Instant) -> ! {
    while Instant::now() < end {
        let _ = setsid();
        std::thread::sleep(Duration::from_millis(1000 + u64::from(number % 1000)));
        if !is_child() {
            break;
        }
    }
    // SAFETY: _exit(2) has no precondition.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(0)
    }
}

/// Runs a bomb and ends it. Each process that was forked is listed, killed and reaped, so a machine on which
/// forking takes seconds is given some times as long.
async fn is_gone_within(rig: &Rig, mode: CgroupMode, limit: Duration) {
    let (stdio, mut output) = crate::output::capture();
    let program = std::env::current_exe().unwrap();
    let args = [program.to_str().unwrap(), "--explode", &COUNT.to_string()];
    let mut new = rig.container("bomb", rig.process(&args), stdio);
    new.monitor.cgroups = mode;
    // So that a bomb that is wrong does not hurt the machine; no controller is needed for the test.
    if crate::limits::has("pids") {
        let limit = json!({"pids": {"limit": 3 * COUNT}}).to_string();
        new.resources = Resources::parse(limit.as_bytes()).unwrap();
    }
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let begin = Instant::now();
    rig.engine.start(&id).await.unwrap();
    assert_eq!(output.line(), "armed");
    let limit = limit.max(begin.elapsed() * 8);
    // All of them have left the session of init by then, and some have another parent.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let executor = rig.engine.executor();
    // Without a cgroup those that change their parent meanwhile are missed.
    let count = executor.pids(&id).await.unwrap().len();
    assert!(count > COUNT as usize / 3, "{count} processes");
    rig.engine
        .kill(&id, reaper_exec::Signal::TERM, true)
        .await
        .unwrap();

    let begin = Instant::now();
    rig.engine
        .kill(&id, reaper_exec::Signal::KILL, false)
        .await
        .unwrap();
    rig.engine.wait(&id).await.unwrap();
    let elapsed = begin.elapsed();
    assert!(!rig.marked_process_exists(), "after {elapsed:?}");
    assert!(elapsed < limit, "{elapsed:?}, and not {limit:?}");
    rig.engine.delete(&id, false).await.unwrap();
}

async fn a_fork_bomb_is_gone_by_the_cgroup_within_a_second(rig: &Rig) {
    is_gone_within(rig, CgroupMode::Enforce, Duration::from_secs(1)).await;
}

async fn a_fork_bomb_is_gone_by_the_tree_within_five_seconds(rig: &Rig) {
    is_gone_within(rig, CgroupMode::Off, Duration::from_secs(5)).await;
}

use std::{
    io::Read as _,
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    thread,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::Pid as NixPid,
};
use proptest::prelude::*;

use super::*;

fn sleeper() -> Child {
    Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep")
}

fn end(mut child: Child) {
    child.kill().expect("kill");
    child.wait().expect("wait");
}

/// Waits until the child has ended, without reaping it.
fn until_zombie(child: &Child) {
    let pid = NixPid::from_raw(i32::try_from(child.id()).expect("pid"));
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("waitid");
}

#[test]
fn process_is_not_alive_as_zombie_nor_after_reaping() {
    let mut child = sleeper();
    let identity = identify(child.id()).expect("identify");
    assert!(is_alive(&identity));
    assert_eq!(identify(child.id()).expect("again"), identity);
    child.kill().expect("kill");
    until_zombie(&child);
    assert!(!is_alive(&identity), "a zombie has ended");
    assert_eq!(
        identify(child.id()).expect("a zombie can be identified"),
        identity
    );
    child.wait().expect("wait");
    assert!(!is_alive(&identity));
    assert!(is_gone(&identify(child.id()).expect_err("reaped")));
}

#[test]
fn another_start_time_or_boot_is_another_process() {
    let child = sleeper();
    let identity = identify(child.id()).expect("identify");
    let earlier = ProcessIdentity {
        start_time: identity.start_time - 1,
        ..identity.clone()
    };
    let other_boot = ProcessIdentity {
        boot_id: "another".into(),
        ..identity
    };
    for stranger in [earlier, other_boot] {
        assert!(!is_alive(&stranger));
        let refusal = open_pidfd(&stranger).expect_err("a stranger");
        assert_eq!(refusal.raw_os_error(), Some(libc::ESRCH));
    }
    open_pidfd(&identity).expect("itself");
    end(child);
}

#[test]
fn a_pidfd_reports_the_end_of_its_process() {
    let mut child = sleeper();
    let pidfd = open_pidfd(&identify(child.id()).expect("identify")).expect("pidfd");
    let poll_now = |timeout: PollTimeout| {
        poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            timeout,
        )
        .expect("poll")
    };
    assert_eq!(poll_now(PollTimeout::ZERO), 0);
    crate::sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).expect("signal");
    assert_eq!(poll_now(PollTimeout::NONE), 1);
    child.wait().expect("wait");
    let refusal = open_pidfd(&ProcessIdentity {
        pid: child.id(),
        start_time: 1,
        boot_id: boot_id().expect("boot id"),
    });
    assert_eq!(
        refusal.expect_err("reaped").raw_os_error(),
        Some(libc::ESRCH)
    );
}

#[test]
fn invalid_pids_are_not_alive_and_open_no_pidfd() {
    for pid in [0, u32::MAX, i32::MAX as u32] {
        let identity = ProcessIdentity {
            pid,
            start_time: 0,
            boot_id: boot_id().expect("boot id"),
        };
        assert!(!is_alive(&identity));
        assert_eq!(
            open_pidfd(&identity)
                .expect_err("no process")
                .raw_os_error(),
            Some(libc::ESRCH)
        );
    }
}

/// As the number of a process that is reaped at this moment, which no test can hold in that state.
#[test]
fn the_number_of_a_thread_is_no_processes() {
    let refusal = thread::spawn(|| {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        pidfd_of(tid.unsigned_abs()).expect_err("not a process")
    });
    let refusal = refusal.join().expect("thread");
    assert_eq!(refusal.raw_os_error(), Some(libc::ESRCH), "{refusal}");
}

#[test]
fn children_of_every_thread_are_found_zombies_included() {
    let mut first = sleeper();
    let second = thread::spawn(sleeper).join().expect("thread");
    first.kill().expect("kill");
    until_zombie(&first);
    let me = std::process::id();
    for found in [
        children(me).expect("children"),
        children_by_scan(me).expect("scan"),
    ] {
        assert!(found.contains(&first.id()), "{found:?}");
        assert!(found.contains(&second.id()), "{found:?}");
        assert!(!found.contains(&me));
    }
    first.wait().expect("wait");
    assert!(!children(me).expect("children").contains(&first.id()));
    end(second);
    assert!(is_gone(
        &children(i32::MAX as u32).expect_err("no such process")
    ));
}

#[test]
fn a_shell_that_forked_has_not_execed_in_the_child() {
    // The subshell is a fork without execve; it blocks on its input until we have looked.
    let mut child = Command::new("sh")
        .args(["-c", "exec 3<&0; (read line <&3) & echo $!; wait"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh");
    let mut line = Vec::new();
    let mut out = child.stdout.take().expect("stdout");
    let mut byte = [0];
    while out.read(&mut byte).expect("read") == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    // Not before it has written: the kernel lets go of who waits for an execve a moment before it
    // clears the flag.
    assert!(has_execed(child.id()).expect("the shell"));
    let forked: u32 = String::from_utf8(line)
        .expect("digits")
        .parse()
        .expect("pid");
    assert!(!has_execed(forked).expect("the subshell"));
    drop(child.stdin.take());
    until_zombie(&child);
    assert!(has_execed(child.id()).expect("a zombie still says so"));
    child.wait().expect("wait");
}

#[test]
fn usage_counts_memory_threads_and_cpu() {
    let me = std::process::id();
    let before = usage(me).expect("usage");
    let block = vec![1_u8; 64 << 20];
    let mut sum = 0_u64;
    let mut spent = before;
    while spent.cpu_user_ns == before.cpu_user_ns {
        sum = block
            .iter()
            .fold(sum, |sum, &byte| sum.wrapping_add(u64::from(byte)));
        spent = usage(me).expect("usage");
    }
    assert!(sum > 0);
    assert!(spent.anonymous_bytes >= 64 << 20, "{spent:?}");
    assert!(spent.rss_bytes >= spent.anonymous_bytes);
    assert!(spent.threads >= 1);
}

fn line(name: &[u8], state: char, ppid: u32, flags: u32, threads: u32, start: u64) -> Vec<u8> {
    let mut line = b"42 (".to_vec();
    line.extend_from_slice(name);
    line.extend_from_slice(
        format!(
            ") {state} {ppid} 9 8 7 -1 {flags} 101 0 0 0 11 12 13 14 20 0 {threads} 0 {start} 3133440 \
             397 18446744073709551615 0\n"
        )
        .as_bytes(),
    );
    line
}

proptest! {
    #[test]
    fn stat_fields_parse_after_any_process_name(
        name in proptest::collection::vec(any::<u8>(), 0..64),
        ppid in any::<u32>(), flags in any::<u32>(), threads in any::<u32>(), start in any::<u64>(),
    ) {
        let parsed = Stat::parse(&line(&name, 'S', ppid, flags, threads, start));
        prop_assert_eq!(parsed, Some(Stat {
            state: b'S',
            parent: ppid,
            session: 8,
            flags: u64::from(flags),
            user_ticks: 11,
            system_ticks: 12,
            reaped_user_ticks: 13,
            reaped_system_ticks: 14,
            threads: u64::from(threads),
            start_time: start,
        }));
    }

    #[test]
    fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..256), text in ".{0,64}") {
        let _ = Stat::parse(&line);
        let _ = stat::resident_and_shared_pages(&text);
    }

    #[test]
    fn truncated_proc_stat_line_is_refused(cut in 0_usize..52) {
        let whole = line(b"x", 'S', 1, 2, 3, 4);
        prop_assert_eq!(Stat::parse(&whole[..cut]), None);
    }
}

#[test]
fn zombie_leader_with_live_threads_has_not_ended() {
    let state = |state, threads| {
        Stat::parse(&line(b"x", state, 1, 0, threads, 5))
            .expect("a line")
            .has_ended()
    };
    assert!(state('Z', 1));
    assert!(state('X', 0));
    assert!(!state('Z', 2));
    assert!(!state('R', 1));
    assert!(!state('D', 1));
}

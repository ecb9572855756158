//! `-t`, driven as by a person: the program on a terminal that the test holds the master of.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::rig::{Rig, code};

const PATIENCE: Duration = Duration::from_secs(30);

/// A person's terminal, with the program on it.
struct Person {
    master: File,
    slave: OwnedFd,
    before: Termios,
    child: Child,
    seen: Vec<u8>,
}

impl Person {
    fn at(rig: &Rig, args: &[&str]) -> Self {
        Self::with(rig, args, &[])
    }

    /// The same with more of an environment.
    fn with(rig: &Rig, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Self::terminal(rig.command(args));
        command.envs(env.iter().copied());
        Self::calls(command)
    }

    /// With the terminal as the program's controlling terminal, which keys send signals from.
    fn in_a_session(rig: &Rig, args: &[&str]) -> Self {
        let program = rig.command(args);
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(program.get_program())
            .args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self::calls(Self::terminal(command))
    }

    fn terminal(mut command: Command) -> Command {
        command.env("TERM", "vt220").env_remove("NO_COLOR");
        command
    }

    fn calls(mut command: Command) -> Self {
        let pty = openpty(None, None).unwrap();
        let size = Winsize {
            ws_col: 101,
            ws_row: 31,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&pty.slave, size).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let stream = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap();
        Self {
            master: pty.master.into(),
            slave: pty.slave,
            before,
            child,
            seen: Vec::new(),
        }
    }

    /// Reads what is on the screen until `text` is.
    fn sees(&mut self, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            assert!(
                !left.is_zero() && self.read(left),
                "no {text:?} in {:?}",
                self.screen()
            );
        }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Reads once; whether anything came within `limit`.
    fn read(&mut self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).unwrap();
        let mut wanted = [PollFd::from_borrowed_fd(self.master.as_fd(), PollFlags::IN)];
        if poll(&mut wanted, Some(&limit)).unwrap() == 0 {
            return false;
        }
        let mut buffer = [0; 65536];
        let length = self.master.read(&mut buffer).unwrap();
        self.seen.extend_from_slice(&buffer[..length]);
        length > 0
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn sends(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the program: its code. The terminal must be as it was.
    fn leaves(&mut self) -> i32 {
        code(self.ends())
    }

    /// The same: how it ended.
    fn ends(&mut self) -> ExitStatus {
        // A full terminal would hold it up.
        let pid = rustix::process::Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let limit = Timespec::try_from(left).unwrap();
            let mut wanted = [
                PollFd::from_borrowed_fd(self.master.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
            ];
            assert!(
                poll(&mut wanted, Some(&limit)).unwrap() > 0,
                "it stays: {}",
                self.screen()
            );
            let (output, ended) = (
                !wanted[0].revents().is_empty(),
                !wanted[1].revents().is_empty(),
            );
            if output {
                self.read(Duration::ZERO);
            } else if ended {
                break;
            }
        }
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(
            format!("{after:?}"),
            format!("{:?}", self.before),
            "the terminal is restored"
        );
        self.child.wait().unwrap()
    }
}

#[test]
fn the_process_has_a_terminal_of_its_own_with_the_same_size_and_kind() {
    let rig = Rig::new();
    let script = "tty; stty size; echo $TERM; exit 5";
    let mut person = Person::at(&rig, &["run", "-t", "--", "sh", "-c", script]);
    assert_eq!(person.leaves(), 5);
    assert!(
        person.screen().starts_with("/dev/pts/"),
        "{}",
        person.screen()
    );
    assert!(
        person.screen().ends_with("31 101\r\nvt220\r\n"),
        "{}",
        person.screen()
    );
}

#[test]
fn typed_input_and_control_c_reach_the_process() {
    let rig = Rig::new();
    let script = "read line; echo \"got $line\"; exec cat";
    let mut person = Person::at(&rig, &["run", "-t", "--", "sh", "-c", script]);
    person.types("a b\r");
    person.sees("got a b");
    assert!(person.is_raw());
    person.types("\x03");
    assert_eq!(person.leaves(), 130);
}

#[test]
fn control_c_reaches_what_a_command_runs_in_the_foreground() {
    let rig = Rig::new();
    // A shell acts on a trap when the program that it waits for has ended.
    let script = "trap 'echo trapped' INT; sh -c 'echo ready; exec sleep 1000'; echo ended; exit 3";
    rig.running("c");
    for args in [
        ["run", "--", "sh", "-c", script],
        ["exec", "c", "sh", "-c", script],
    ] {
        let mut person = Person::in_a_session(&rig, &args);
        person.sees("ready");
        person.types("\x03");
        assert_eq!(person.leaves(), 3);
        person.sees("ended");
    }
}

#[test]
fn a_command_that_a_key_ends_ends_this_program_by_the_same_signal() {
    let rig = Rig::new();
    for (key, signal) in [("\x03", Signal::SIGINT), ("\x1c", Signal::SIGQUIT)] {
        // A shell that is just about to start another program would wait for that one's end first.
        let script = "echo ready; exec sleep 1000";
        let mut person = Person::in_a_session(&rig, &["run", "--", "sh", "-c", script]);
        person.sees("ready");
        person.types(key);
        let status = person.ends();
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
        assert!(!status.core_dumped());
    }
}

#[test]
fn a_directory_as_input_is_the_end_of_input() {
    let rig = Rig::new();
    rig.running("c");
    for args in [["run", "-t", "--", "cat"], ["exec", "-t", "c", "cat"]] {
        let input = File::open("/").unwrap();
        let output = rig.command(&args).stdin(input).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn exec_gets_terminal_of_callers_size() {
    let rig = Rig::new();
    rig.running("c");
    let mut person = Person::at(&rig, &["exec", "-t", "c", "sh"]);
    person.types("stty size; tty\r");
    person.sees("31 101");
    person.types("exit 9\r");
    assert_eq!(person.leaves(), 9);
}

#[test]
fn the_size_of_the_window_is_followed() {
    let rig = Rig::new();
    let script = "trap 'stty size; exit 0' WINCH; echo ready; sleep 1000 & wait";
    let mut person = Person::at(&rig, &["run", "-t", "--", "sh", "-c", script]);
    person.sees("ready");
    let size = Winsize {
        ws_col: 77,
        ws_row: 44,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&person.master, size).unwrap();
    // The kernel tells the terminal's own session, which the test's children are not in.
    person.sends(Signal::SIGWINCH);
    assert_eq!(person.leaves(), 0);
    assert!(person.screen().contains("44 77"), "{}", person.screen());
}

#[test]
fn the_terminal_is_restored_whatever_ends_the_process() {
    let rig = Rig::new();
    let wait = [
        "run",
        "-t",
        "--name",
        "c",
        "--",
        "sh",
        "-c",
        "echo ready; exec sleep 1000",
    ];
    let mut killed = Person::at(&rig, &wait);
    killed.sees("ready");
    assert!(killed.is_raw());
    rig.ok(&["kill", "c", "KILL"]);
    assert_eq!(killed.leaves(), 137);

    for (signal, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
        (Signal::SIGQUIT, 131),
    ] {
        let mut person = Person::at(&rig, &wait);
        person.sees("ready");
        assert!(person.is_raw());
        person.sends(signal);
        assert_eq!(person.leaves(), code);
    }

    let mut missing = Person::at(&rig, &["run", "-t", "--", "no-such-program"]);
    assert_eq!(missing.leaves(), 1);
}

#[test]
fn nothing_of_the_output_is_lost_at_the_end() {
    let rig = Rig::new();
    let script = "stty -opost; head -c 300000 /dev/zero | tr '\\0' x; printf '\\377\\000end'";
    let mut person = Person::at(&rig, &["run", "-t", "--", "sh", "-c", script]);
    assert_eq!(person.leaves(), 0);
    assert_eq!(
        person.seen.iter().filter(|byte| **byte == b'x').count(),
        300_000
    );
    assert!(person.seen.ends_with(b"\xff\0end"));
}

#[test]
fn the_input_may_be_a_pipe() {
    let rig = Rig::new();
    let mut child = rig
        .command(&["run", "-t", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"from a pipe\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(output.status), 0);
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("from a pipe\r\n"));
}

#[test]
fn tables_are_coloured_only_on_a_terminal() {
    let rig = Rig::new();
    rig.running("c");
    let mut person = Person::at(&rig, &["list"]);
    assert_eq!(person.leaves(), 0);
    let screen = person.screen();
    assert!(screen.contains("\x1b[1mID\x1b[0m"), "{screen:?}");
    assert!(screen.contains("\x1b[32mrunning\x1b[0m"), "{screen:?}");
    let mut plain = Person::with(&rig, &["list"], &[("NO_COLOR", "1")]);
    assert_eq!(plain.leaves(), 0);
    assert!(plain.screen().contains("running"));
    assert!(!plain.screen().contains('\x1b'), "{:?}", plain.screen());
    assert!(!rig.ok(&["list"]).contains('\x1b'));
}

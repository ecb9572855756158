//! containerd's command line client.

use std::{
    fmt::Write as _,
    process::{self, Command, Stdio},
};

use crate::{Node, image::BUSYBOX, runtime::LIMIT};

/// What a program has said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// Its output.
    pub stdout: String,
    /// Its error output.
    pub stderr: String,
}

impl Output {
    /// Runs a program to its end. It is killed when it takes longer than anything may.
    pub fn of(command: &mut Command) -> Self {
        let mut limited = Command::new("timeout");
        limited.args(["-s", "KILL", &LIMIT.as_secs().to_string()]);
        limited.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(key, value),
                None => limited.env_remove(key),
            };
        }
        limited
            .stdin(Stdio::null())
            .output()
            .map(Self::from)
            .expect("run a program")
    }

    /// Panics with all that was said unless the exit code is 0. Returns the output.
    #[track_caller]
    pub fn assert_success(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// All that was said.
    pub fn text(&self) -> String {
        let mut text = self.stdout.clone();
        let _ = write!(text, "{}", self.stderr);
        text
    }
}

impl From<process::Output> for Output {
    fn from(output: process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Self {
            code: status
                .code()
                .or_else(|| Some(128 + status.signal()?))
                .unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Node {
    /// A `ctr` in this node's own namespace, with its arguments still to come.
    pub fn ctr_command(&self) -> Command {
        self.ctr_command_in(self.marker())
    }

    /// Runs `ctr` in this node's own namespace.
    pub fn ctr(&self, args: &[&str]) -> Output {
        self.ctr_in(self.marker(), args)
    }

    /// Runs `ctr` in a namespace.
    pub fn ctr_in(&self, namespace: &str, args: &[&str]) -> Output {
        Output::of(self.ctr_command_in(namespace).args(args))
    }

    /// Runs a command to its end: `ctr run --rm`. `name` is made unique by [`Node::name`].
    pub fn ctr_run(&self, name: &str, args: &[&str]) -> Output {
        self.ctr_run_with(name, &["--rm"], args)
    }

    /// Runs a command by `ctr run` with some options of it.
    pub fn ctr_run_with(&self, name: &str, options: &[&str], args: &[&str]) -> Output {
        Output::of(&mut self.ctr_run_command(name, options, args))
    }

    /// `ctr run` with some options of it, to be started.
    pub fn ctr_run_command(&self, name: &str, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.ctr_command();
        command
            .args(["run", "--runtime", self.runtime(), "--fifo-dir"])
            .arg(self.dir().join("fifo"))
            .args(options)
            .arg(BUSYBOX)
            .arg(self.name(name))
            .args(args);
        command
    }

    fn ctr_command_in(&self, namespace: &str) -> Command {
        let mut command = Command::new(self.suite().program("ctr"));
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace]);
        command
    }
}

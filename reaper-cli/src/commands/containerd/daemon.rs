//! The containerds of this machine.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PROGRAM: &str = "containerd";

/// A containerd that runs, or is installed.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// The process, where it runs.
    pid: Option<u32>,
    /// The program's file.
    program: PathBuf,
    /// Whether the process executes what that file was before.
    replaced: bool,
    /// Its configuration file, where it was given one.
    config: Option<PathBuf>,
    path: OsString,
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) if self.replaced => write!(
                f,
                "process {pid}, whose program {} was replaced since it started",
                self.program.display()
            ),
            Some(pid) => write!(f, "process {pid}, {}", self.program.display()),
            None => write!(f, "{} (it does not run)", self.program.display()),
        }
    }
}

/// Those that run, as `proc` has them.
pub(super) fn running(proc: &Path) -> Vec<Daemon> {
    let mut pids: Vec<u32> = fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter()
        .filter_map(|pid| of_process(proc, pid))
        .collect()
}

/// The one that a shell would start.
pub(super) fn installed(path: &OsStr) -> Option<Daemon> {
    let found = env::split_paths(path).map(|dir| dir.join(PROGRAM));
    let program = found.into_iter().find(|file| file.is_file())?;
    Some(Daemon {
        pid: None,
        program,
        replaced: false,
        config: None,
        path: path.to_owned(),
    })
}

/// `None` if it is another program, has ended, or is not to be looked at.
fn of_process(proc: &Path, pid: u32) -> Option<Daemon> {
    let dir = proc.join(pid.to_string());
    let name = fs::read_to_string(dir.join("comm")).ok()?;
    if name.trim_end() != PROGRAM {
        return None;
    }
    let (program, replaced) = program_of(&dir)?;
    let arguments = fs::read(dir.join("cmdline")).ok()?;
    let config = config_of(&arguments).map(|config| {
        // As the process sees it, whose root and directory may be others.
        if config.is_absolute() {
            let in_its_root = dir
                .join("root")
                .join(config.strip_prefix("/").unwrap_or(&config));
            if config.exists() { config } else { in_its_root }
        } else {
            dir.join("cwd").join(config)
        }
    });
    let environment = fs::read(dir.join("environ")).unwrap_or_default();
    let path = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(b"PATH="));
    Some(Daemon {
        pid: Some(pid),
        program,
        replaced,
        config,
        path: OsStr::from_bytes(path.unwrap_or_default()).to_owned(),
    })
}

/// The program of the process whose folder in /proc is `dir`, and whether its file was replaced. It is
/// going to be executed, and any process can call itself so: only what this machine has at the same path
/// counts, and no program of a container or of another user.
fn program_of(dir: &Path) -> Option<(PathBuf, bool)> {
    if !is_trusted(fs::metadata(dir).ok()?.uid()) {
        return None;
    }
    let link = fs::read_link(dir.join("exe")).ok()?;
    if let Some(file) = link.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        let file = PathBuf::from(OsStr::from_bytes(file));
        return is_ours(&file).then_some((file, true));
    }
    let (running, here) = (
        fs::metadata(dir.join("exe")).ok()?,
        fs::metadata(&link).ok()?,
    );
    let is_same = (running.dev(), running.ino()) == (here.dev(), here.ino());
    (is_same && is_ours(&link)).then_some((link, false))
}

/// Whether no other user can have written the program.
fn is_ours(file: &Path) -> bool {
    fs::metadata(file)
        .is_ok_and(|file| file.is_file() && is_trusted(file.uid()) && file.mode() & 0o022 == 0)
}

/// Whether what an account does is root's or this user's doing.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// What `-c FILE`, `--config FILE` or `--config=FILE` says.
fn config_of(arguments: &[u8]) -> Option<PathBuf> {
    let mut arguments = arguments.split(|byte| *byte == 0);
    while let Some(argument) = arguments.next() {
        let value = match argument {
            b"-c" | b"--config" | b"-config" => arguments.next(),
            _ => argument
                .strip_prefix(b"--config=")
                .or_else(|| argument.strip_prefix(b"-config="))
                .or_else(|| argument.strip_prefix(b"-c=")),
        };
        if let Some(value) = value {
            return Some(Path::new(OsStr::from_bytes(value)).to_owned());
        }
    }
    None
}

impl Daemon {
    /// What its program prints, called with its configuration.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        self.ask_with(self.config.as_deref(), arguments)
    }

    /// What its program prints, called with another configuration.
    pub(crate) fn ask_with(
        &self,
        config: Option<&Path>,
        arguments: &[&str],
    ) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        // Where it is one of several programs in one file, this name says which.
        command.arg0(PROGRAM);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let output = command
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().rfind(|line| !line.trim().is_empty());
        Err(said.map_or_else(|| output.status.to_string(), str::to_owned))
    }

    /// How it is called, for people.
    pub(super) fn command_line(&self) -> String {
        match &self.config {
            Some(config) => format!("{} --config {}", self.program.display(), config.display()),
            None => self.program.display().to_string(),
        }
    }

    /// The same, started with another configuration.
    pub(crate) fn with_config(mut self, config: &Path) -> Self {
        self.config = Some(config.to_owned());
        self
    }

    /// The process, where it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    pub(crate) fn is_running(&self) -> bool {
        self.pid.is_some()
    }

    /// The program's file.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The file that its configuration is in.
    pub(crate) fn config(&self) -> &Path {
        let usual = || Path::new("/etc/containerd/config.toml");
        self.config.as_deref().unwrap_or_else(usual)
    }

    /// Where it looks for shims.
    pub(crate) fn search_path(&self) -> Vec<PathBuf> {
        let beside = self.program.parent().map(Path::to_owned);
        env::split_paths(&self.path).chain(beside).collect()
    }
}

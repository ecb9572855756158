//! A monitor in miniature, which drives bound streams as the real one does, and the clients of
//! FIFOs, without threads.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            fs::OpenOptionsExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        stat::Mode,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, mkfifo},
};
use reaper_exec::io::{
    BindRequest, BoundStdio, ChildStdio, IoBinder, IoError, StandardBinder, StdioFds, StdioRequest,
    StreamTarget, Streams,
};
use reaper_spec::{ConsoleSize, ContainerId};
use rustix::process::{PidfdFlags, pidfd_open};
use tempfile::TempDir;

/// How long anything may take; only a failing test takes it.
const LIMIT: Duration = Duration::from_secs(30);

/// A descriptor's number that no test reaches otherwise.
const ABOVE_ALL: i32 = 900;

/// Tests run at the same time, but for those that count what the program has open.
static PROGRAM: RwLock<()> = RwLock::new(());

/// Keeps the descriptors below 6 in use, as they are in a monitor: what starts loggers relies on
/// no other thread closing one of them meanwhile.
static LOWEST: OnceLock<Vec<File>> = OnceLock::new();

/// Held for writing by who forks. Until its program is executed a child has copies of all that is
/// open, other tests' FIFOs included: to a monitor that lets go of one it would be a reader. A real
/// monitor is a process with one thread.
static FORKING: RwLock<()> = RwLock::new(());

/// Does what may fork, while nobody lets go of a FIFO, and returns when the children have closed
/// what they have copies of.
pub(crate) fn forking<T>(body: impl FnOnce() -> T) -> T {
    let _alone = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    let (mut gone, ours) = std::io::pipe().expect("pipe");
    // execve(2) closes in the order of the numbers, some time after the parent goes on.
    let last = fcntl(&ours, FcntlArg::F_DUPFD_CLOEXEC(ABOVE_ALL)).expect("dup");
    let done = body();
    nix::unistd::close(last).expect("close");
    drop(ours);
    gone.read_to_end(&mut Vec::new()).expect("read");
    done
}

fn occupy_lowest() {
    LOWEST.get_or_init(|| {
        let open = || File::open("/dev/null").expect("/dev/null");
        std::iter::repeat_with(open)
            .take_while(|file| file.as_raw_fd() < 6)
            .collect()
    });
}

/// A folder of a test's own.
pub(crate) struct Scratch {
    folder: TempDir,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _alone: Option<RwLockWriteGuard<'static, ()>>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        occupy_lowest();
        let guard = PROGRAM.read().unwrap_or_else(PoisonError::into_inner);
        Self {
            folder: TempDir::new().expect("a folder"),
            _shared: Some(guard),
            _alone: None,
        }
    }

    /// While no other test runs.
    pub(crate) fn alone() -> Self {
        occupy_lowest();
        let guard = PROGRAM.write().unwrap_or_else(PoisonError::into_inner);
        Self {
            folder: TempDir::new().expect("a folder"),
            _shared: None,
            _alone: Some(guard),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        mkfifo(&path, Mode::S_IRWXU).expect("mkfifo");
        path
    }
}

pub(crate) fn uri(target: impl AsRef<Path>) -> StreamTarget {
    StreamTarget::Uri(target.as_ref().to_str().expect("a test's path").to_owned())
}

/// What a binder is asked for, with defaults.
#[derive(Default)]
pub(crate) struct Ask {
    pub(crate) streams: Streams,
    pub(crate) attachments: StdioFds,
    pub(crate) terminal: Option<Option<ConsoleSize>>,
    pub(crate) owner: Option<(u32, u32)>,
}

impl Ask {
    pub(crate) fn streams(stdin: StreamTarget, stdout: StreamTarget, stderr: StreamTarget) -> Self {
        Self {
            streams: Streams::new()
                .with_stdin(stdin)
                .with_stdout(stdout)
                .with_stderr(stderr),
            ..Self::default()
        }
    }

    pub(crate) fn output(stdout: StreamTarget) -> Self {
        Self::streams(StreamTarget::Null, stdout, StreamTarget::Null)
    }

    pub(crate) fn terminal(stdin: StreamTarget, stdout: StreamTarget) -> Self {
        Self {
            terminal: Some(None),
            ..Self::streams(stdin, stdout, StreamTarget::Null)
        }
    }

    pub(crate) fn try_bind(self, binder: &dyn IoBinder) -> Result<Monitor, IoError> {
        let id = ContainerId::new("web-1").expect("an id");
        let stdio = StdioRequest::new(self.streams).with_attachments(self.attachments);
        let (terminal, owner) = (self.terminal, self.owner);
        let request = BindRequest::new(&id, stdio)
            .with_namespace("k8s.io")
            .with_terminal(terminal)
            .with_owner(owner);
        let mut monitor = Monitor::new(forking(|| binder.bind(request))?);
        loop {
            match monitor.bound.is_ready() {
                Ok(true) => return Ok(monitor),
                Ok(false) => drop(monitor.turn(&[])),
                Err(error) => {
                    while !monitor.bound.helpers().is_empty() {
                        monitor.turn(&[]);
                    }
                    return Err(error);
                }
            }
        }
    }

    pub(crate) fn bind(self) -> Monitor {
        self.try_bind(&StandardBinder::new()).expect("bind")
    }

    pub(crate) fn refused(self) -> String {
        match self.try_bind(&StandardBinder::new()) {
            Ok(_) => panic!("bound"),
            Err(error) => error.to_string(),
        }
    }
}

pub(crate) struct Monitor {
    pub(crate) bound: Box<dyn BoundStdio>,
    child: Option<(Child, OwnedFd)>,
    pub(crate) exit: Option<ExitStatus>,
    /// How helpers ended: exit code, or 128 and the signal.
    pub(crate) helpers: Vec<i32>,
}

impl Monitor {
    fn new(bound: Box<dyn BoundStdio>) -> Self {
        Self {
            bound,
            child: None,
            exit: None,
            helpers: Vec::new(),
        }
    }

    /// Runs a shell script with the streams. On a terminal it is the leader of a session.
    pub(crate) fn spawn(&mut self, script: &str) -> u32 {
        self.spawn_as(script, None)
    }

    pub(crate) fn spawn_as(&mut self, script: &str, uid: Option<u32>) -> u32 {
        let (mut command, fds) = match self.bound.take_child().expect("the child's ends") {
            ChildStdio::Streams(fds) => (Command::new("/bin/sh"), fds),
            ChildStdio::Terminal(slave) => {
                let mut command = Command::new("setsid");
                command.args(["--ctty", "/bin/sh"]);
                let copy = || slave.try_clone().expect("dup");
                (command, [copy(), copy(), copy()])
            }
        };
        assert!(self.bound.take_child().is_none(), "handed out once");
        let [stdin, stdout, stderr] = fds;
        command
            .args(["-c", script])
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        if let Some(uid) = uid {
            command.uid(uid);
        }
        let child = forking(|| command.spawn()).expect("spawn");
        drop(command);
        let pid = child.id();
        self.child = Some((child, pidfd_of(pid).1));
        pid
    }

    /// One poll(2) and what follows from it. Says what was reported of the client's descriptors.
    pub(crate) fn turn(&mut self, clients: &[(BorrowedFd<'_>, PollFlags)]) -> Vec<PollFlags> {
        let helpers: Vec<(u32, OwnedFd)> = self.bound.helpers().into_iter().map(pidfd_of).collect();
        let mut wanted = Vec::new();
        self.bound.interests(&mut wanted);
        let mut fds: Vec<PollFd<'_>> = wanted
            .iter()
            .chain(clients)
            .map(|&(fd, flags)| PollFd::new(fd, flags))
            .chain(
                helpers
                    .iter()
                    .map(|(_, fd)| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
            )
            .collect();
        if let Some((_, pidfd)) = &self.child {
            fds.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
        }
        let deadline = self.bound.deadline();
        let wait = deadline.map_or(LIMIT, |at| at.saturating_duration_since(Instant::now()));
        // Rounded up, or the deadline would be met by spinning through its last millisecond.
        let wait = PollTimeout::try_from(wait + Duration::from_millis(1)).expect("short");
        let reported = poll(&mut fds, wait).expect("poll");
        assert!(
            reported > 0 || deadline.is_some(),
            "nothing happens any more"
        );

        let flags: Vec<PollFlags> = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        let own: Vec<_> = wanted
            .iter()
            .map(|(fd, _)| fd.as_raw_fd())
            .zip(flags.clone())
            .collect();
        let nobody_forks = FORKING.read().unwrap_or_else(PoisonError::into_inner);
        let clients_end = own.len() + clients.len();
        let helpers_end = clients_end + helpers.len();
        for (fd, events) in own.iter().filter(|(_, events)| !events.is_empty()) {
            self.bound.ready(*fd, *events);
        }
        for ((pid, _), events) in helpers.iter().zip(&flags[clients_end..helpers_end]) {
            if !events.is_empty() {
                self.reap(*pid);
            }
        }
        if flags[helpers_end..].iter().any(|events| !events.is_empty())
            && let Some((mut child, _)) = self.child.take()
        {
            self.exit = Some(child.wait().expect("wait"));
            self.bound.ended();
        }
        if self.bound.deadline().is_some_and(|at| at <= Instant::now()) {
            self.bound.timeout();
        }
        drop(nobody_forks);
        flags[own.len()..clients_end].to_vec()
    }

    fn reap(&mut self, pid: u32) {
        let raw = Pid::from_raw(i32::try_from(pid).expect("a pid"));
        let status = waitpid(raw, Some(WaitPidFlag::WNOHANG)).expect("waitpid");
        self.helpers.push(match status {
            nix::sys::wait::WaitStatus::Exited(_, code) => code,
            nix::sys::wait::WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
            other => panic!("{other:?}"),
        });
        self.bound.helper_ended(pid);
    }

    /// Until the process has ended. Says its exit code, or 128 and the signal.
    pub(crate) fn run_to_exit(&mut self) -> i32 {
        while self.child.is_some() {
            self.turn(&[]);
        }
        let status = self.exit.expect("an exit");
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().expect("a signal"))
    }

    /// Until nothing is held any more.
    pub(crate) fn finish(&mut self) {
        while !self.bound.is_finished() {
            self.turn(&[]);
        }
    }

    /// Until a client has read what satisfies `enough`, or the end of file.
    pub(crate) fn read_until(
        &mut self,
        client: &mut File,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Vec<u8> {
        self.exchange(client, None, enough)
    }

    /// All up to the end of file.
    pub(crate) fn read_to_end(&mut self, client: &mut File) -> Vec<u8> {
        self.read_until(client, |_| false)
    }

    /// Reads, and writes meanwhile, both as fast as it goes.
    pub(crate) fn exchange(
        &mut self,
        client: &mut File,
        mut input: Option<(&File, &[u8])>,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Vec<u8> {
        let mut received = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        while !enough(&received) {
            let mut clients = vec![(client.as_fd(), PollFlags::POLLIN)];
            clients.extend(input.map(|(writer, _)| (writer.as_fd(), PollFlags::POLLOUT)));
            let reported = self.turn(&clients);
            if let Some((mut writer, bytes)) = input
                && !reported[1].is_empty()
            {
                let count = writer.write(bytes).expect("write");
                input = Some((writer, &bytes[count..])).filter(|(_, rest)| !rest.is_empty());
            }
            if !reported[0].is_empty() {
                match client.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => received.extend_from_slice(&chunk[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        received
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn pidfd_of(pid: u32) -> (u32, OwnedFd) {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .expect("a pid");
    (pid, pidfd_open(raw, PidfdFlags::empty()).expect("pidfd"))
}

/// A client that reads, as containerd's does: without waiting for a writer.
pub(crate) fn reader(fifo: &Path) -> File {
    open(OpenOptions::new().read(true), fifo)
}

/// A client that writes.
pub(crate) fn writer(fifo: &Path) -> File {
    open(OpenOptions::new().write(true), fifo)
}

fn open(options: &mut OpenOptions, fifo: &Path) -> File {
    options
        .custom_flags(libc::O_NONBLOCK)
        .open(fifo)
        .expect("open the FIFO")
}

/// Bytes of every value, which don't repeat soon.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[7]
    };
    std::iter::repeat_with(next).take(length).collect()
}

//! The contract of opening streams: what is asked, what is returned, and why it fails.

use std::{
    fmt, io,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::poll::PollFlags;
use reaper_spec::{ConsoleSize, ContainerId};
use serde::{Deserialize, Serialize};

/// Where one stream goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamTarget {
    /// `/dev/null`.
    #[default]
    Null,
    /// The descriptor of the caller that was handed along with the request.
    Inherit,
    /// A path of a FIFO, or a URI as containerd's clients write it: `fifo:///path`,
    /// `file:///path`, `binary:///program?key=value`.
    Uri(String),
}

impl StreamTarget {
    /// The target that a URI of containerd's task API names. An empty string means no stream.
    pub fn from_uri(uri: &str) -> Self {
        if uri.is_empty() {
            Self::Null
        } else {
            Self::Uri(uri.to_owned())
        }
    }
}

/// Where the streams of a process go.
///
/// The descriptors of inherited streams, and a console socket, travel beside it:
/// see [`StdioFds`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct StdioRequest {
    /// Where the streams go, as data.
    pub streams: Streams,
    /// The descriptors that belong to them.
    pub attachments: StdioFds,
}

impl StdioRequest {
    /// Streams that need no descriptors.
    pub fn new(streams: Streams) -> Self {
        Self {
            streams,
            attachments: StdioFds::default(),
        }
    }

    /// With the descriptors that belong to the streams.
    #[must_use]
    pub fn with_attachments(mut self, attachments: StdioFds) -> Self {
        self.attachments = attachments;
        self
    }
}

/// Where the streams of a process go, as data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Streams {
    /// The input.
    pub stdin: StreamTarget,
    /// The output. With a terminal, the terminal's.
    pub stdout: StreamTarget,
    /// The error output. Not used with a terminal.
    pub stderr: StreamTarget,
}

impl Streams {
    /// All three are `/dev/null`.
    pub fn new() -> Self {
        Self::default()
    }

    /// All three are those of the caller: see [`StreamTarget::Inherit`].
    pub fn inherited() -> Self {
        Self {
            stdin: StreamTarget::Inherit,
            stdout: StreamTarget::Inherit,
            stderr: StreamTarget::Inherit,
        }
    }

    /// With this input.
    #[must_use]
    pub fn with_stdin(mut self, stdin: StreamTarget) -> Self {
        self.stdin = stdin;
        self
    }

    /// With this output.
    #[must_use]
    pub fn with_stdout(mut self, stdout: StreamTarget) -> Self {
        self.stdout = stdout;
        self
    }

    /// With this error output.
    #[must_use]
    pub fn with_stderr(mut self, stderr: StreamTarget) -> Self {
        self.stderr = stderr;
        self
    }
}

/// Descriptors that a request refers to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct StdioFds {
    /// For [`StreamTarget::Inherit`]: standard input, output, error.
    pub inherited: [Option<OwnedFd>; 3],
    /// A connected Unix stream socket to which the terminal's master is sent (runc's
    /// `--console-socket`); the streams are then not used.
    pub console_socket: Option<OwnedFd>,
}

impl StdioFds {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// With standard input, output and error for [`StreamTarget::Inherit`].
    #[must_use]
    pub fn with_inherited(mut self, inherited: [Option<OwnedFd>; 3]) -> Self {
        self.inherited = inherited;
        self
    }

    /// With a socket to which the terminal's master is sent.
    #[must_use]
    pub fn with_console_socket(mut self, console_socket: impl Into<Option<OwnedFd>>) -> Self {
        self.console_socket = console_socket.into();
        self
    }
}

/// What a binder is asked for.
#[derive(Debug)]
#[non_exhaustive]
pub struct BindRequest<'a> {
    /// The container, for loggers and messages.
    pub id: &'a ContainerId,
    /// The containerd namespace, for loggers; empty outside containerd.
    pub namespace: &'a str,
    /// Where the streams go.
    pub stdio: StdioRequest,
    /// Whether the process gets a terminal, and its first size.
    pub terminal: Option<Option<ConsoleSize>>,
    /// The master of that terminal, where a runtime has made it; otherwise the binder makes one.
    pub master: Option<OwnedFd>,
    /// The uid and gid of the process, which the streams are handed to so that it can open
    /// `/dev/stderr`. `None` keeps the runtime's.
    pub owner: Option<(u32, u32)>,
}

impl<'a> BindRequest<'a> {
    /// Streams of a process without a terminal, of a container outside of containerd.
    pub fn new(id: &'a ContainerId, stdio: StdioRequest) -> Self {
        Self {
            id,
            namespace: "",
            stdio,
            terminal: None,
            master: None,
            owner: None,
        }
    }

    /// With the containerd namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: &'a str) -> Self {
        self.namespace = namespace;
        self
    }

    /// With or without a terminal, and its first size.
    #[must_use]
    pub fn with_terminal(mut self, terminal: Option<Option<ConsoleSize>>) -> Self {
        self.terminal = terminal;
        self
    }

    /// With the master of a terminal that a runtime has made.
    #[must_use]
    pub fn with_master(mut self, master: impl Into<Option<OwnedFd>>) -> Self {
        self.master = master.into();
        self
    }

    /// With the uid and gid that the streams are handed to.
    #[must_use]
    pub fn with_owner(mut self, owner: impl Into<Option<(u32, u32)>>) -> Self {
        self.owner = owner.into();
        self
    }
}

/// What a forked child installs as its standard streams.
#[derive(Debug)]
pub enum ChildStdio {
    /// Three descriptors, blocking, close-on-exec.
    Streams([OwnedFd; 3]),
    /// The slave side of a terminal, to become all three and the controlling terminal.
    Terminal(OwnedFd),
}

/// Opens the streams of processes.
///
/// # Contract
/// * It is called by a monitor, one process with one thread, for each process of the container, and
///   lives as long as the monitor does: longer than the program that asked for the streams.
/// * **Never blocking.** Neither it nor what it returns waits for a peer: a FIFO that has no
///   other end, a reader that does not read.
/// * **All or nothing.** On an error nothing is left open and no helper runs.
/// * **The child's ends are its own**: blocking, close-on-exec, and open file descriptions that the
///   monitor does not use itself.
/// * **Nothing is lost** that a process has written as long as a reader may still come, and a slow
///   reader holds up the process, not the monitor.
/// * **Nothing breaks**: a process that writes gets neither a signal nor an error when its peer
///   closes.
/// * **An input lasts** until [`close_stdin`](BoundStdio::close_stdin), however often clients come
///   and go, and ends then once what is buffered was read.
/// * Dropping what it returned closes everything, and ends its helpers.
///
/// References and [`Box`]es of a binder are binders.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait IoBinder {
    /// Opens what a process needs.
    ///
    /// # Errors
    /// The stream and its path, and what went wrong. Nothing is left behind.
    #[allow(
        clippy::needless_lifetimes,
        reason = "a mock of it has to name the lifetime"
    )]
    fn bind<'a>(&self, request: BindRequest<'a>) -> Result<Box<dyn BoundStdio>, IoError>;
}

impl<B: IoBinder + ?Sized> IoBinder for &B {
    fn bind(&self, request: BindRequest<'_>) -> Result<Box<dyn BoundStdio>, IoError> {
        (**self).bind(request)
    }
}

impl<B: IoBinder + ?Sized> IoBinder for Box<B> {
    fn bind(&self, request: BindRequest<'_>) -> Result<Box<dyn BoundStdio>, IoError> {
        (**self).bind(request)
    }
}

/// The open streams of one process, on the monitor's side.
///
/// The monitor calls [`interests`](Self::interests) before each poll(2) and
/// [`ready`](Self::ready) for each descriptor that reported something.
pub trait BoundStdio {
    /// The child's ends. They are handed out once, before the fork; the monitor drops its copies
    /// after it. `None` from then on.
    fn take_child(&mut self) -> Option<ChildStdio>;

    /// Which descriptors to poll, and for what. `POLLERR` and `POLLHUP` always count.
    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>);

    /// Does what can be done without blocking on a descriptor that is ready.
    fn ready(&mut self, fd: RawFd, events: PollFlags);

    /// Ends the input once what is buffered was read. Idempotent.
    fn close_stdin(&mut self);

    /// Whether the peers are ready for the process, which cannot be started before. Asked
    /// after [`ready`](Self::ready) and [`timeout`](Self::timeout).
    ///
    /// # Errors
    /// They will never be: the process is killed.
    fn is_ready(&self) -> Result<bool, IoError> {
        Ok(true)
    }

    /// Changes the terminal's size. Without a terminal it does nothing.
    ///
    /// # Errors
    /// What ioctl(2) said.
    fn resize(&mut self, size: ConsoleSize) -> io::Result<()>;

    /// The process has ended, and for init everything that it started. What was written and can
    /// be passed on without blocking is passed on before this returns; from then on the streams
    /// close as soon as nothing can be lost by it.
    fn ended(&mut self);

    /// Whether nothing is held any more. Only after [`ended`](Self::ended).
    fn is_finished(&self) -> bool;

    /// The pids of helpers, such as loggers, that are the monitor's children and are neither to
    /// be killed with the container nor taken for one of its processes.
    fn helpers(&self) -> Vec<u32> {
        Vec::new()
    }

    /// One of [`helpers`](Self::helpers) has been reaped.
    fn helper_ended(&mut self, _pid: u32) {}

    /// When [`timeout`](Self::timeout) wants to be called, if at all.
    fn deadline(&self) -> Option<std::time::Instant> {
        None
    }

    /// The [`deadline`](Self::deadline) has passed.
    fn timeout(&mut self) {}
}

/// Why streams could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IoError {
    /// A system call failed.
    #[error("{operation}: {source}")]
    System {
        /// What was being done, with the stream and its path.
        operation: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The target is of a kind that is not known.
    #[error(
        "{stream}: {uri:?} is no stream target: use a path of a FIFO, fifo://, file:// or binary://"
    )]
    Target {
        /// Which stream.
        stream: &'static str,
        /// What was asked.
        uri: String,
    },
    /// A descriptor that the request refers to did not come with it.
    #[error("{0}: to be inherited, but no descriptor came with the request")]
    Missing(&'static str),
    /// A terminal's stream was to be inherited.
    #[error(
        "{0}: a terminal cannot inherit it: give a FIFO, file://, binary:// or a console socket"
    )]
    InheritTerminal(&'static str),
    /// A terminal's output was to go to the journal.
    #[error(
        "{0}: a terminal's output cannot go to the journal: give a FIFO, file://, binary:// or a \
         console socket"
    )]
    JournalTerminal(&'static str),
    /// The settings in a target for the journal are wrong.
    #[error("{stream}: {uri:?} {problem}")]
    JournalTarget {
        /// Which stream.
        stream: &'static str,
        /// What was asked.
        uri: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No journal takes an output.
    #[error(
        "{stream}: no journal listens at {}: {source}; start systemd-journald, or choose another \
         target, such as file:///path", socket.display()
    )]
    NoJournal {
        /// Which stream.
        stream: &'static str,
        /// Where it was looked for.
        socket: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The file at a path is not of the kind that the target names.
    #[error("{stream}: {} is {found}, not {wanted}", path.display())]
    Kind {
        /// Which stream.
        stream: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What was expected.
        wanted: &'static str,
    },
    /// A logger did not say that it is ready, and was killed.
    #[error(
        "{stream}: the logger {} was not ready (descriptor 5 closed) after {waited:?}",
        program.display()
    )]
    LoggerNotReady {
        /// Which stream.
        stream: &'static str,
        /// The logger.
        program: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl IoError {
    pub(super) fn at(
        stream: Stream,
        operation: &str,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        let operation = format!("{stream}: {operation} {}", path.display());
        Self::System {
            operation,
            source: source.into(),
        }
    }
}

/// One of the standard streams; its value is its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl Stream {
    pub(super) const ALL: [Self; 3] = [Self::Stdin, Self::Stdout, Self::Stderr];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

//! The binder for what containerd and the command line name: FIFOs, files, loggers, terminals.
//!
//! A process gets the FIFO or file itself, opened afresh, so that nothing is copied and the monitor
//! is not in the way of its output. Only the bytes of a terminal are copied. The ends that the
//! monitor keeps follow the rule in `fifo.rs`, by which a late reader gets all output and no reader
//! waits for ever.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use reaper_spec::{ConsoleSize, ContainerId};

use super::{
    console::SentConsole,
    contract::{BindRequest, BoundStdio, IoBinder, IoError, StdioFds, Stream, Streams},
    fifo::{InputFifo, OutputFifo},
    file,
    locate::Located,
    logger::{Logger, LoggerLimits},
    loggers::Loggers,
    owner,
    pty::{self, Pty},
    sink::Sink,
    streams::DirectStreams,
    terminal::{Source, Terminal},
    uri::{self, LoggerCommand, Target},
};

/// Streams as containerd and the command line name them.
///
/// * A FIFO, as `fifo:///path` or a bare path, must exist. It is handed to the process itself.
/// * A file, as `file:///path`, is appended to and made if it is missing, with its folders. A bare
///   path may name one that exists. As an input it is read.
/// * A logger, as `binary:///program?key=value`, is started, and has by default 10 s to say that
///   it is ready: see [`is_ready`](BoundStdio::is_ready).
/// * Where both outputs have the same target they share one FIFO, open file or logger.
/// * With a terminal the error output is not used. Its streams cannot be inherited; who wants to
///   have the terminal gives a console socket.
///
/// The process's user is made the owner of what it was given, as runc does.
///
/// Dropping the streams of a process kills its loggers. To let them finish, the monitor goes
/// on serving them until [`helpers`](BoundStdio::helpers) is empty.
///
/// The process that serves streams must ignore SIGPIPE, as Rust programs do from their start.
#[derive(Debug, Clone, Default)]
pub struct StandardBinder {
    logger_limits: LoggerLimits,
}

impl StandardBinder {
    /// With the limits that [`LoggerLimits::default`] names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives loggers other limits.
    #[must_use]
    pub fn logger_limits(mut self, limits: LoggerLimits) -> Self {
        self.logger_limits = limits;
        self
    }
}

impl IoBinder for StandardBinder {
    fn bind(&self, request: BindRequest<'_>) -> Result<Box<dyn BoundStdio>, IoError> {
        let BindRequest {
            id,
            namespace,
            stdio,
            terminal,
            master,
            owner,
        } = request;
        let binding = Binding {
            id,
            namespace,
            owner,
            limits: self.logger_limits,
            attachments: stdio.attachments,
            fifos: Vec::new(),
            loggers: Loggers::default(),
        };
        match terminal {
            None => Ok(Box::new(binding.direct(&stdio.streams)?)),
            Some(size) => binding.terminal(&stdio.streams, size, master),
        }
    }
}

/// Streams that are being opened. Dropping it closes all and ends its loggers.
struct Binding<'a> {
    id: &'a ContainerId,
    namespace: &'a str,
    owner: Option<(u32, u32)>,
    limits: LoggerLimits,
    attachments: StdioFds,
    fifos: Vec<OutputFifo>,
    loggers: Loggers,
}

impl Binding<'_> {
    fn direct(mut self, streams: &Streams) -> Result<DirectStreams, IoError> {
        let stdin = uri::parse(Stream::Stdin, &streams.stdin)?;
        let stdout = uri::parse(Stream::Stdout, &streams.stdout)?;
        let stderr = uri::parse(Stream::Stderr, &streams.stderr)?;

        let (input, keep_alive) = match stdin {
            Target::Inherit => (self.inherited(Stream::Stdin)?, None),
            target => {
                let source = self.input(&target, OFlag::empty())?;
                match source {
                    Some(source) => (source.reader, source.keep_alive),
                    None => (file::null(Stream::Stdin)?, None),
                }
            }
        };
        let (output, errors) = self.outputs(&stdout, &stderr)?;
        let child = [input, output, errors];
        for (stream, fd) in Stream::ALL.into_iter().zip(&child) {
            owner::chown_stream(stream, fd.as_fd(), self.owner)?;
        }
        Ok(DirectStreams {
            child: Some(child),
            stdin_keep_alive: keep_alive,
            fifos: self.fifos,
            loggers: self.loggers.bound(),
        })
    }

    fn outputs(&mut self, stdout: &Target, stderr: &Target) -> Result<(OwnedFd, OwnedFd), IoError> {
        match (stdout, stderr) {
            (Target::Logger(command), other) if other == stdout => {
                let [output, errors] = self.logger(Stream::Stdout, command)?;
                Ok((output, errors))
            }
            (Target::Fifo(_) | Target::File(_) | Target::Path(_), other) if other == stdout => {
                let output = self.output(Stream::Stdout, stdout)?;
                let errors = output.try_clone().map_err(|source| IoError::System {
                    operation: "stderr: share stdout".to_owned(),
                    source,
                })?;
                Ok((output, errors))
            }
            _ => Ok((
                self.output(Stream::Stdout, stdout)?,
                self.output(Stream::Stderr, stderr)?,
            )),
        }
    }

    /// The child's end of an output.
    fn output(&mut self, stream: Stream, target: &Target) -> Result<OwnedFd, IoError> {
        match target {
            Target::Null => file::null(stream),
            Target::Inherit => self.inherited(stream),
            Target::File(path) => file::open_file(stream, path),
            Target::Logger(command) => {
                let [output, errors] = self.logger(stream, command)?;
                Ok(if stream == Stream::Stderr {
                    errors
                } else {
                    output
                })
            }
            Target::Fifo(path) | Target::Path(path) => {
                let found = Located::find(stream, path)?;
                if found.is_fifo() {
                    self.fifos.push(OutputFifo::hold(&found)?);
                    // The held read end keeps this from blocking, and it must not be nonblocking:
                    // that is not what a program expects of its output.
                    found.open(OFlag::O_WRONLY)
                } else if matches!(target, Target::Path(_)) {
                    file::open_existing(stream, &found, path)
                } else {
                    Err(found.unexpected("a FIFO"))
                }
            }
        }
    }

    /// The reading end of an input, opened with more `flags`; `None` if there is no input.
    fn input(&mut self, target: &Target, flags: OFlag) -> Result<Option<Source>, IoError> {
        let stream = Stream::Stdin;
        let reader = match target {
            Target::Null => return Ok(None),
            Target::Inherit => self.inherited(stream)?,
            Target::File(path) => file::open_file(stream, path)?,
            Target::Logger(command) => {
                let uri = format!("binary://{}", command.program.display());
                return Err(IoError::Target {
                    stream: stream.name(),
                    uri,
                });
            }
            Target::Fifo(path) | Target::Path(path) => {
                let found = Located::find(stream, path)?;
                if found.is_fifo() {
                    let InputFifo { reader, keep_alive } = InputFifo::open(&found, flags)?;
                    return Ok(Some(Source {
                        reader,
                        keep_alive: Some(keep_alive),
                    }));
                }
                if !matches!(target, Target::Path(_)) {
                    return Err(found.unexpected("a FIFO"));
                }
                file::open_existing(stream, &found, path)?
            }
        };
        Ok(Some(Source {
            reader,
            keep_alive: None,
        }))
    }

    fn inherited(&mut self, stream: Stream) -> Result<OwnedFd, IoError> {
        let slot = &mut self.attachments.inherited[stream as usize];
        let fd = slot.take().ok_or(IoError::Missing(stream.name()))?;
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|errno| IoError::System {
            operation: format!("{stream}: inherit"),
            source: errno.into(),
        })?;
        Ok(fd)
    }

    fn logger(&mut self, stream: Stream, command: &LoggerCommand) -> Result<[OwnedFd; 2], IoError> {
        let (logger, ends) = Logger::start(stream, command, self.id, self.namespace, self.limits)?;
        self.loggers.push(logger);
        Ok(ends)
    }

    fn terminal(
        mut self,
        streams: &Streams,
        size: Option<ConsoleSize>,
        master: Option<OwnedFd>,
    ) -> Result<Box<dyn BoundStdio>, IoError> {
        let failed = |operation: &str| {
            let operation = operation.to_owned();
            move |source| IoError::System { operation, source }
        };
        let terminal = match master {
            Some(master) => Pty::of(master).map_err(failed("terminal: take over"))?,
            None => Pty::open().map_err(failed("terminal: open"))?,
        };
        if let Some(size) = size {
            pty::resize(&terminal.slave, size).map_err(failed("terminal: set its size"))?;
        }
        owner::chown_terminal(terminal.slave.as_fd(), self.owner)?;
        if let Some(socket) = self.attachments.console_socket.take() {
            let sent = SentConsole::send(terminal, &socket)
                .map_err(failed("terminal: send it to the console socket"))?;
            return Ok(Box::new(sent));
        }
        let source = match uri::parse(Stream::Stdin, &streams.stdin)? {
            Target::Inherit => return Err(IoError::InheritTerminal(Stream::Stdin.name())),
            target => self.input(&target, OFlag::O_NONBLOCK)?,
        };
        if let Some(source) = &source {
            never_block(Stream::Stdin, &source.reader)?;
        }
        let sink = self.sink(&uri::parse(Stream::Stdout, &streams.stdout)?)?;
        let terminal = Terminal::new(terminal, source, sink, self.loggers)
            .map_err(failed("terminal: prepare"))?;
        Ok(Box::new(terminal))
    }

    fn sink(&mut self, target: &Target) -> Result<Sink, IoError> {
        let stream = Stream::Stdout;
        match target {
            Target::Null => Ok(Sink::Discard),
            Target::Inherit => Err(IoError::InheritTerminal(stream.name())),
            Target::Logger(command) => {
                let [output, _] = self.logger(stream, command)?;
                never_block(stream, &output)?;
                Ok(Sink::Other(output))
            }
            target => {
                let end = self.output(stream, target)?;
                // A FIFO is written by the end that holds it.
                if let Some(fifo) = self.fifos.pop() {
                    return Ok(Sink::Fifo(fifo));
                }
                never_block(stream, &end)?;
                Ok(Sink::Other(end))
            }
        }
    }
}

/// Makes a descriptor that the monitor reads or writes nonblocking. Its open file description must
/// not be shared.
fn never_block(stream: Stream, fd: &OwnedFd) -> Result<(), IoError> {
    file::set_nonblocking(fd, true).map_err(|errno| IoError::System {
        operation: format!("{stream}: make it nonblocking"),
        source: errno.into(),
    })
}

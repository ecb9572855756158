//! Binders that break the contract, each in one way: the suite finds each of them, by the rule that
//! it breaks.

use std::{
    fs::{File, OpenOptions},
    io::{self, PipeReader, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    panic::catch_unwind,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::PollFlags,
};
use reaper_exec::io::{
    BindRequest, BoundStdio, ChildStdio, IoBinder, IoError, StandardBinder, StreamTarget,
    conformance::{RULES, Subject},
};
use reaper_spec::ConsoleSize;

use crate::support::Scratch;

/// In which way a binder is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Drops what the reader does not take at once.
    LosesOutputOfSlowReaders,
    /// Drops what was written while no client read.
    LosesOutputOfLateReaders,
    /// Passes on the second of two parts first.
    Reorders,
    /// Opens an output as a shell does, which waits for a reader.
    BlocksOnAbsentReader,
    /// Is no reader of the FIFO itself: a write without a client is SIGPIPE, and EPIPE.
    GivesEpipeWithoutClient,
    /// Goes on holding the output of a terminal.
    KeepsTerminalAfterExit,
    /// Leaves the input open.
    LeaksDescriptor,
    /// Leaves the output open for clients.
    LeaksWriter,
    /// Says that a terminal has another size by now.
    IgnoresResize,
    /// Gives a terminal no first size.
    IgnoresFirstSize,
    /// Lets a process's input end when its client leaves.
    ClosesStdinOnDetach,
    /// Never ends an input.
    KeepsStdinOpen,
    /// Gives a process ends that do not wait.
    GivesNonblockingEnds,
    /// Gives the child's ends again.
    HandsOutEndsTwice,
    /// Binds a target that it does not know to nothing.
    TakesUnknownTargets,
}

use Fault::*;

/// Each fault, and the rule that is to find it.
const FAULTS: &[(Fault, &str)] = &[
    (LosesOutputOfSlowReaders, "a_slow_reader_loses_nothing"),
    (
        LosesOutputOfLateReaders,
        "a_missing_reader_blocks_nothing_and_a_late_one_gets_all",
    ),
    (Reorders, "output_keeps_its_order"),
    (
        BlocksOnAbsentReader,
        "a_missing_reader_blocks_nothing_and_a_late_one_gets_all",
    ),
    (
        GivesEpipeWithoutClient,
        "closed_reader_does_not_fail_the_process",
    ),
    (KeepsTerminalAfterExit, "a_terminal_ends_with_its_process"),
    (LeaksDescriptor, "dropped_streams_leave_no_descriptor_open"),
    (LeaksWriter, "dropping_bound_streams_ends_clients_output"),
    (
        IgnoresResize,
        "a_terminal_has_the_size_that_it_was_given_last",
    ),
    (
        IgnoresFirstSize,
        "a_terminal_has_the_size_that_it_was_given_last",
    ),
    (
        ClosesStdinOnDetach,
        "an_input_outlives_its_clients_until_it_is_closed",
    ),
    (KeepsStdinOpen, "an_input_can_be_closed_before_the_start"),
    (
        GivesNonblockingEnds,
        "child_gets_blocking_close_on_exec_descriptors_once",
    ),
    (
        HandsOutEndsTwice,
        "child_gets_blocking_close_on_exec_descriptors_once",
    ),
    (
        TakesUnknownTargets,
        "an_unknown_target_is_refused_by_its_name",
    ),
];

/// A binder that is right but for its fault.
struct Mutant {
    inner: StandardBinder,
    fault: Option<Fault>,
}

impl IoBinder for Mutant {
    fn bind(&self, mut request: BindRequest<'_>) -> Result<Box<dyn BoundStdio>, IoError> {
        let is = |fault| self.fault == Some(fault);
        let streams = &mut request.stdio.streams;
        let (input, output) = (path(&streams.stdin), path(&streams.stdout));
        let has_terminal = request.terminal.is_some();
        let mut own_input = None;
        if is(ClosesStdinOnDetach) && !has_terminal {
            streams.stdin = StreamTarget::Null;
            own_input = Some(OwnInput::open(&input));
        }
        if is(TakesUnknownTargets) && !output.is_absolute() {
            streams.stdout = StreamTarget::Null;
        }
        if is(BlocksOnAbsentReader) {
            drop(OpenOptions::new().write(true).open(&output));
        }
        if is(LeaksDescriptor) {
            std::mem::forget(open(&input, OFlag::O_RDONLY));
        }
        if is(IgnoresFirstSize) {
            request.terminal = request.terminal.map(|_| None);
        }
        let inner = self.inner.bind(request)?;
        if is(LeaksWriter) {
            std::mem::forget(open(&output, OFlag::O_WRONLY));
        }
        let kept = is(KeepsTerminalAfterExit) && has_terminal;
        Ok(Box::new(Wrong {
            inner: Some(inner),
            fault: self.fault,
            pump: None,
            own_input,
            kept: kept.then(|| open(&output, OFlag::O_WRONLY)),
            copies: None,
            output,
            has_ended: false,
        }))
    }
}

fn path(target: &StreamTarget) -> PathBuf {
    match target {
        StreamTarget::Uri(uri) => uri.into(),
        _ => PathBuf::new(),
    }
}

/// Opens a FIFO and does not wait.
fn open(fifo: &Path, access: OFlag) -> File {
    let mut options = OpenOptions::new();
    options.read(access == OFlag::O_RDONLY);
    options.write(access == OFlag::O_WRONLY);
    options.custom_flags(OFlag::O_NONBLOCK.bits());
    options.open(fifo).expect("open a FIFO")
}

fn set_nonblocking(fd: impl AsFd, nonblocking: bool) {
    let flags = fcntl(&fd, FcntlArg::F_GETFL).expect("flags");
    let mut flags = OFlag::from_bits_retain(flags);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(&fd, FcntlArg::F_SETFL(flags)).expect("set flags");
}

/// An input that is kept open until its client was there once.
struct OwnInput {
    fifo: PathBuf,
    reader: Option<OwnedFd>,
    keep_alive: Option<File>,
}

impl OwnInput {
    fn open(fifo: &Path) -> Self {
        let reader = open(fifo, OFlag::O_RDONLY);
        let keep_alive = Some(open(fifo, OFlag::O_WRONLY));
        set_nonblocking(&reader, false);
        Self {
            fifo: fifo.to_owned(),
            reader: Some(reader.into()),
            keep_alive,
        }
    }

    /// Ends the input, and returns when the process has closed it.
    fn end(&mut self) {
        let Some(writer) = self.keep_alive.take() else {
            return;
        };
        drop(writer);
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
        while options.open(&self.fifo).is_ok() {
            // Without a writer, so that the process sees the end.
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Passes on an output by a pipe.
struct Pump {
    fault: Option<Fault>,
    source: Option<PipeReader>,
    sink: Option<File>,
    buffer: Vec<u8>,
    /// Waits for another part that comes first.
    held: Vec<u8>,
}

impl Pump {
    fn is_flushed(&self) -> bool {
        self.buffer.is_empty() && self.source.is_none()
    }

    /// Reads and passes on what it can without waiting.
    fn turn(&mut self) {
        self.flush();
        while self.buffer.is_empty() && self.read() {
            self.flush();
        }
        if self.is_flushed() {
            self.sink = None;
        }
    }

    /// Whether something was read, or is held no more.
    fn read(&mut self) -> bool {
        let Some(source) = &mut self.source else {
            return false;
        };
        let mut part = vec![0; 4096];
        match source.read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => panic!("read a pipe: {error}"),
            Ok(0) => {
                self.source = None;
                self.buffer.append(&mut self.held);
            }
            Ok(length) => {
                part.truncate(length);
                if self.fault == Some(Reorders) && self.held.is_empty() {
                    self.held = part;
                } else {
                    self.buffer.append(&mut part);
                    self.buffer.append(&mut self.held);
                }
            }
        }
        true
    }

    fn flush(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        while !self.buffer.is_empty() {
            match sink.write(&self.buffer) {
                Ok(written) => drop(self.buffer.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("write to a FIFO: {error}"),
            }
        }
        if self.fault == Some(LosesOutputOfSlowReaders) {
            self.buffer.clear();
        }
    }
}

/// The streams of a process, wrong in one way.
struct Wrong {
    inner: Option<Box<dyn BoundStdio>>,
    fault: Option<Fault>,
    pump: Option<Pump>,
    own_input: Option<OwnInput>,
    kept: Option<File>,
    copies: Option<[OwnedFd; 3]>,
    output: PathBuf,
    has_ended: bool,
}

impl Wrong {
    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Puts a pipe before the output.
    fn tap(&mut self, output: OwnedFd) -> OwnedFd {
        let (source, end) = io::pipe().expect("a pipe");
        set_nonblocking(&source, true);
        set_nonblocking(&output, true);
        self.pump = Some(Pump {
            fault: self.fault,
            source: Some(source),
            sink: Some(output.into()),
            buffer: Vec::new(),
            held: Vec::new(),
        });
        end.into()
    }

    /// Ends the inner streams once all was passed on to them.
    fn end(&mut self) {
        let is_flushed = self.pump.as_ref().is_none_or(Pump::is_flushed);
        if let Some(inner) = &mut self.inner
            && self.has_ended
            && is_flushed
        {
            inner.ended();
            if self.fault == Some(LosesOutputOfLateReaders) {
                let _ = open(&self.output, OFlag::O_RDONLY).read(&mut [0; 4096]);
            }
            // Once.
            self.has_ended = false;
        }
    }
}

impl BoundStdio for Wrong {
    fn take_child(&mut self) -> Option<ChildStdio> {
        if let Some(copies) = self.copies.take() {
            return Some(ChildStdio::Streams(copies));
        }
        let child = self.inner.as_mut()?.take_child()?;
        let ChildStdio::Streams([mut input, output, errors]) = child else {
            return Some(child);
        };
        if let Some(own) = &mut self.own_input {
            input = own.reader.take().expect("taken once");
        }
        let output = if self.is(GivesEpipeWithoutClient) {
            let direct = open(&self.output, OFlag::O_WRONLY);
            set_nonblocking(&direct, false);
            self.inner = None;
            direct.into()
        } else {
            self.tap(output)
        };
        if self.is(GivesNonblockingEnds) {
            set_nonblocking(&output, true);
        }
        let ends = [input, output, errors];
        if self.is(HandsOutEndsTwice) {
            let copy = |end: &OwnedFd| end.try_clone().expect("dup");
            self.copies = Some(ends.each_ref().map(copy));
        }
        Some(ChildStdio::Streams(ends))
    }

    fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        if let Some(inner) = &self.inner {
            inner.interests(wanted);
        }
        let Some(pump) = &self.pump else { return };
        if pump.buffer.is_empty() {
            let source = pump.source.as_ref();
            wanted.extend(source.map(|source| (source.as_fd(), PollFlags::POLLIN)));
        } else {
            let sink = pump.sink.as_ref();
            wanted.extend(sink.map(|sink| (sink.as_fd(), PollFlags::POLLOUT)));
        }
    }

    fn ready(&mut self, fd: RawFd, events: PollFlags) {
        let Some(pump) = &mut self.pump else {
            self.inner
                .iter_mut()
                .for_each(|inner| inner.ready(fd, events));
            return;
        };
        let source = pump.source.as_ref().map(AsRawFd::as_raw_fd);
        let sink = pump.sink.as_ref().map(AsRawFd::as_raw_fd);
        if ![source, sink].contains(&Some(fd)) {
            self.inner
                .iter_mut()
                .for_each(|inner| inner.ready(fd, events));
            return;
        }
        pump.turn();
        // What it writes was written to it: the client was there.
        if let Some(own) = &mut self.own_input {
            own.end();
        }
        self.end();
    }

    fn close_stdin(&mut self) {
        if let Some(own) = &mut self.own_input {
            own.keep_alive = None;
        }
        if !self.is(KeepsStdinOpen) {
            self.inner.iter_mut().for_each(|inner| inner.close_stdin());
        }
    }

    fn is_ready(&self) -> Result<bool, IoError> {
        self.inner
            .as_ref()
            .map_or(Ok(true), |inner| inner.is_ready())
    }

    fn resize(&mut self, size: ConsoleSize) -> io::Result<()> {
        match &mut self.inner {
            Some(inner) if self.fault != Some(IgnoresResize) => inner.resize(size),
            _ => Ok(()),
        }
    }

    fn ended(&mut self) {
        self.has_ended = true;
        self.pump.iter_mut().for_each(Pump::turn);
        self.end();
    }

    fn is_finished(&self) -> bool {
        self.kept.is_none()
            && self.pump.as_ref().is_none_or(Pump::is_flushed)
            && self.inner.as_ref().is_none_or(|inner| inner.is_finished())
    }

    fn helpers(&self) -> Vec<u32> {
        let helpers = self.inner.as_ref().map(|inner| inner.helpers());
        helpers.unwrap_or_default()
    }
}

fn subject(fault: Option<Fault>) -> Subject {
    // The suite forks, and knows nothing of the tests beside it.
    let folder = Scratch::alone();
    let inner = StandardBinder::new();
    Subject::new(Mutant { inner, fault }, folder.path()).keeping(folder)
}

#[test]
fn binder_without_fault_keeps_every_rule() {
    for rule in RULES {
        rule.check(&subject(None));
    }
}

#[test]
fn each_faulty_binder_is_found_by_the_rule_that_it_breaks() {
    for &(fault, name) in FAULTS {
        let rule = RULES.iter().find(|rule| rule.name == name);
        let rule = rule.unwrap_or_else(|| panic!("no rule {name}"));
        // What is lost does not come: these take all of the limit.
        let check = || rule.check(&subject(Some(fault)).within(Duration::from_secs(3)));
        let said = match catch_unwind(check) {
            Ok(()) => panic!("{name} does not find a binder that {fault:?}"),
            Err(cause) => *cause.downcast::<String>().expect("a message"),
        };
        assert!(
            said.starts_with(&format!("the rule {name} is broken: ")),
            "{said}"
        );
    }
}

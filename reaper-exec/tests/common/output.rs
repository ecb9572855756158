//! Reading what a process of a test writes.

use std::{
    fs::File,
    io::{PipeReader, Read},
    os::fd::OwnedFd,
};

use reaper_exec::io::{StdioFds, StdioRequest, Streams};

/// The read end of a process's standard output and error.
pub(crate) struct Output(PipeReader);

impl Output {
    /// One line, without its end; empty at the end of the output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.0.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// The rest.
    pub(crate) fn all(mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).unwrap();
        text
    }
}

/// Streams that are inherited: no input, and a pipe for both outputs.
pub(crate) fn capture() -> (StdioRequest, Output) {
    let (reader, writer) = std::io::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    let second = writer.try_clone().unwrap();
    let inherited = [null.into(), OwnedFd::from(writer), OwnedFd::from(second)];
    let stdio = StdioRequest::new(Streams::inherited())
        .with_attachments(StdioFds::new().with_inherited(inherited.map(Some)));
    (stdio, Output(reader))
}

//! The monitor's side: who opens captured outputs.

use std::os::fd::{AsFd, OwnedFd};

use nix::{fcntl::OFlag, unistd::pipe2};

use super::{
    OutputStream, TARGET,
    pump::{Pump, Source},
};
use crate::io::{
    BindRequest, BoundStdio, ChildStdio, IoBinder, IoError, StandardBinder, Stream, StreamTarget,
    file, owner,
};

/// Captured outputs, for the other end of a [`Capture`](super::Capture); everything else is bound
/// by another binder.
///
/// A terminal is not captured: who wants to have it gives a console socket.
#[derive(Debug, Clone, Default)]
pub struct CaptureBinder<B = StandardBinder> {
    others: B,
}

impl<B: IoBinder> CaptureBinder<B> {
    /// What is not captured is bound by `others`.
    pub fn over(others: B) -> Self {
        Self { others }
    }
}

impl<B: IoBinder> IoBinder for CaptureBinder<B> {
    fn bind(&self, mut request: BindRequest<'_>) -> Result<Box<dyn BoundStdio>, IoError> {
        let streams = &mut request.stdio.streams;
        let captured = [
            (Stream::Stdout, OutputStream::Stdout, &mut streams.stdout),
            (Stream::Stderr, OutputStream::Stderr, &mut streams.stderr),
        ];
        let mut outputs = Vec::new();
        for (stream, output, target) in captured {
            if matches!(target, StreamTarget::Uri(uri) if uri == TARGET) {
                *target = StreamTarget::Null;
                outputs.push((stream, output));
            }
        }
        let Some((first, _)) = outputs.first() else {
            return self.others.bind(request);
        };
        if request.terminal.is_some() {
            return Err(IoError::InheritTerminal(first.name()));
        }
        let socket = request.stdio.attachments.inherited[*first as usize]
            .take()
            .ok_or(IoError::Missing(first.name()))?;
        let system = |stream: Stream, operation: &str| {
            let operation = format!("{stream}: {operation}");
            move |errno: nix::errno::Errno| IoError::System {
                operation,
                source: errno.into(),
            }
        };
        file::set_nonblocking(&socket, true).map_err(system(*first, "use the socket"))?;

        let (mut sources, mut ends) = (Vec::new(), Vec::new());
        for (stream, output) in outputs {
            let (reader, writer) =
                pipe2(OFlag::O_CLOEXEC).map_err(system(stream, "make a pipe"))?;
            file::set_nonblocking(&reader, true).map_err(system(stream, "make a pipe"))?;
            owner::hand_over(stream, writer.as_fd(), request.owner)?;
            sources.push(Source { output, reader });
            ends.push((stream, writer));
        }
        let mut others = self.others.bind(request)?;
        let child = others.take_child().map(|child| replace(child, ends));
        Ok(Box::new(Pump::new(others, child, sources, socket)))
    }
}

/// Gives the child captured outputs in place of what the other binder has opened for them.
fn replace(child: ChildStdio, ends: Vec<(Stream, OwnedFd)>) -> ChildStdio {
    match child {
        ChildStdio::Streams(mut streams) => {
            for (stream, end) in ends {
                streams[stream as usize] = end;
            }
            ChildStdio::Streams(streams)
        }
        terminal @ ChildStdio::Terminal(_) => terminal,
    }
}

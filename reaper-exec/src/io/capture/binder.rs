//! The monitor's side: who opens captured outputs.

use super::{
    OutputStream, TARGET,
    pump::{Messages, Source},
};
use crate::io::{
    binder::StandardBinder,
    contract::{BindRequest, BoundStdio, IoBinder, IoError, Stream, StreamTarget},
    file,
    tapped::{self, Tapped},
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
    pub fn with_fallback(others: B) -> Self {
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
        file::set_nonblocking(&socket, true).map_err(|errno| IoError::System {
            operation: format!("{first}: use the socket"),
            source: errno.into(),
        })?;

        let (mut sources, mut ends) = (Vec::new(), Vec::new());
        for (stream, output) in outputs {
            let (reader, writer) = tapped::pipe(stream, request.owner)?;
            sources.push(Source { output, reader });
            ends.push((stream, writer));
        }
        let others = self.others.bind(request)?;
        let messages = Messages::new(sources, socket);
        Ok(Box::new(Tapped::new(others, ends, messages)))
    }
}

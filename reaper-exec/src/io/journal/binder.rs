//! Who opens outputs that go to the journal.

use std::path::{Path, PathBuf};

use super::{
    Journal, Priority,
    pump::{Connection, Entries, Passage},
    target,
};
use crate::io::{
    binder::StandardBinder,
    contract::{BindRequest, BoundStdio, IoBinder, IoError, Stream, StreamTarget},
    tapped::{self, Tapped},
};

/// Where the journal of the node listens for streams.
const SOCKET: &str = "/run/systemd/journal/stdout";

/// Outputs that go to the node's journal, see [`Journal`]; everything else is bound by another
/// binder.
///
/// * A journal that is not there makes binding fail. One that goes away later is connected to again
///   with what the process writes next; what cannot be passed on then is thrown away. The process
///   notices nothing. (systemd holds the connections of its journal while that is restarted.)
/// * A journal that does not read fills the pipes, and the process waits.
/// * Where both outputs have the same settings, a priority included, they share a pipe, and their
///   order is kept. Otherwise the two are in the order in which the journal saw them.
/// * The last line counts without its end.
/// * The fields that the journal adds of itself, such as `_PID` and `_SYSTEMD_UNIT`, are those of
///   the monitor: entries are found by their identifier.
/// * A terminal's output cannot go to the journal.
///
/// The process that serves streams must ignore SIGPIPE, as Rust programs do from their start.
#[derive(Debug, Clone, Default)]
pub struct JournalBinder<B = StandardBinder> {
    others: B,
}

impl<B: IoBinder> JournalBinder<B> {
    /// What does not go to the journal is bound by `others`.
    pub fn with_fallback(others: B) -> Self {
        Self { others }
    }
}

impl<B: IoBinder> IoBinder for JournalBinder<B> {
    fn bind(&self, mut request: BindRequest<'_>) -> Result<Box<dyn BoundStdio>, IoError> {
        let id = request.id.as_str();
        let streams = &mut request.stdio.streams;
        let mut outputs = Vec::new();
        for (stream, target) in [
            (Stream::Stdout, &mut streams.stdout),
            (Stream::Stderr, &mut streams.stderr),
        ] {
            if let StreamTarget::Uri(uri) = target
                && let Some(journal) = target::read(stream, uri)
            {
                outputs.push((stream, Settings::of(stream, journal?, id)));
                *target = StreamTarget::Null;
            }
        }
        let Some((first, _)) = outputs.first() else {
            return self.others.bind(request);
        };
        if request.terminal.is_some() {
            return Err(IoError::JournalTerminal(first.name()));
        }

        let alike = matches!(&outputs[..], [(_, one), (_, other)] if one == other);
        let (mut passages, mut ends) = (Vec::new(), Vec::new());
        for (stream, settings) in outputs {
            if alike && let Some((_, writer)) = ends.first() {
                ends.push((stream, tapped::share(stream, writer)?));
                continue;
            }
            let journal =
                Connection::open(&settings.socket, settings.header()).map_err(|source| {
                    IoError::NoJournal {
                        stream: stream.name(),
                        socket: settings.socket,
                        source,
                    }
                })?;
            let (reader, writer) = tapped::pipe(stream, request.owner)?;
            passages.push(Passage::new(reader, journal));
            ends.push((stream, writer));
        }
        let others = self.others.bind(request)?;
        Ok(Box::new(Tapped::new(others, ends, Entries(passages))))
    }
}

/// What holds for an output, with what is not said filled in.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    socket: PathBuf,
    identifier: String,
    priority: Priority,
    level_prefix: bool,
}

impl Settings {
    fn of(stream: Stream, journal: Journal, id: &str) -> Self {
        let usual = match stream {
            Stream::Stderr => Priority::Error,
            Stream::Stdin | Stream::Stdout => Priority::Info,
        };
        Self {
            socket: journal
                .socket
                .unwrap_or_else(|| Path::new(SOCKET).to_owned()),
            identifier: journal.identifier.unwrap_or_else(|| id.to_owned()),
            priority: journal.priority.unwrap_or(usual),
            level_prefix: journal.level_prefix,
        }
    }

    /// What comes before the text: identifier, unit, priority, whether lines have priorities of
    /// their own, and whether they go to syslog, the kernel's log and the console as well.
    fn header(&self) -> String {
        format!(
            "{}\n\n{}\n{}\n0\n0\n0\n",
            self.identifier,
            self.priority as u8,
            u8::from(self.level_prefix)
        )
    }
}

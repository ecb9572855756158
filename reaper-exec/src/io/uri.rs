//! Reading what a caller wrote as the target of a stream.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

use super::contract::{IoError, Stream, StreamTarget};

/// A target that is well formed; whether it can be opened is another matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Null,
    Inherit,
    /// A bare path: a FIFO, or a file that exists.
    Path(PathBuf),
    Fifo(PathBuf),
    File(PathBuf),
    Logger(LoggerCommand),
}

/// The program of a `binary://` target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggerCommand {
    pub(super) program: PathBuf,
    /// Each key of the query and its value, in the order in which they were written.
    pub(super) args: Vec<OsString>,
}

/// Reads a target as containerd does: a path without a scheme is taken literally, everything in a
/// URI is percent-decoded, and the pairs of a logger's query become two arguments each.
///
/// Paths must be absolute, since the caller does not know the monitor's working directory. A
/// query or fragment that has no meaning is refused rather than dropped: it is most likely a
/// file name that was not encoded.
pub(super) fn parse(stream: Stream, target: &StreamTarget) -> Result<Target, IoError> {
    let uri = match target {
        StreamTarget::Null => return Ok(Target::Null),
        StreamTarget::Inherit => return Ok(Target::Inherit),
        StreamTarget::Uri(uri) => uri,
    };
    parse_uri(uri).ok_or_else(|| IoError::Target {
        stream: stream.name(),
        uri: uri.clone(),
    })
}

/// Reads a target, and nothing more.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(target: &StreamTarget) {
    let _ = parse(Stream::Stdin, target);
}

fn parse_uri(uri: &str) -> Option<Target> {
    if uri.contains('\0') {
        return None;
    }
    if uri.starts_with('/') {
        return Some(Target::Path(PathBuf::from(uri)));
    }
    let (scheme, rest) = uri.split_once("://")?;
    let rest = rest
        .strip_prefix("localhost")
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(rest);
    if !rest.starts_with('/') || rest.contains('#') {
        return None;
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = PathBuf::from(decode(path, false)?);
    match (scheme.to_ascii_lowercase().as_str(), query) {
        ("fifo", None) => Some(Target::Fifo(path)),
        ("file", None) => Some(Target::File(path)),
        ("binary", query) => {
            let args = arguments(query.unwrap_or_default())?;
            Some(Target::Logger(LoggerCommand {
                program: path,
                args,
            }))
        }
        _ => None,
    }
}

/// The pairs of a query, each as two elements.
pub(super) fn arguments(query: &str) -> Option<Vec<OsString>> {
    let mut args = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        args.push(decode(key, true)?);
        args.push(decode(value, true)?);
    }
    Some(args)
}

/// Decodes a percent-encoded text. `None` if it is not well formed, or holds a zero byte.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Option<OsString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => match (digit(rest.next()?)? << 4) | digit(rest.next()?)? {
                0 => return None,
                decoded => decoded,
            },
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    Some(OsString::from_vec(bytes))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

impl LoggerCommand {
    pub(super) fn program(&self) -> &OsStr {
        self.program.as_os_str()
    }
}

#[cfg(test)]
mod tests;

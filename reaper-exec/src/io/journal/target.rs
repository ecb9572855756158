//! A target as a URI.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{Journal, Priority};
use crate::io::{
    contract::{IoError, Stream},
    uri,
};

const SCHEME: &str = "journald://";

/// As syslog(3) and journalctl(1) call them, the highest first.
const PRIORITIES: [(&str, Priority); 8] = [
    ("emerg", Priority::Emergency),
    ("alert", Priority::Alert),
    ("crit", Priority::Critical),
    ("err", Priority::Error),
    ("warning", Priority::Warning),
    ("notice", Priority::Notice),
    ("info", Priority::Info),
    ("debug", Priority::Debug),
];

/// The target as [`read`] reads it.
pub(super) fn write(journal: &Journal) -> String {
    let mut options = Vec::new();
    if let Some(identifier) = &journal.identifier {
        options.push(format!("identifier={}", encode(identifier.as_ref())));
    }
    if let Some(priority) = journal.priority {
        options.push(format!("priority={}", PRIORITIES[priority as usize].0));
    }
    if !journal.level_prefix {
        options.push("level-prefix=no".to_owned());
    }
    let socket = journal.socket.as_deref().map(Path::as_os_str);
    let mut uri = format!("{SCHEME}{}", encode(socket.unwrap_or_default()));
    if !options.is_empty() {
        uri.push('?');
        uri.push_str(&options.join("&"));
    }
    uri
}

/// Reads a target. `None` if it is none of the journal.
pub(super) fn read(stream: Stream, uri: &str) -> Option<Result<Journal, IoError>> {
    let rest = uri.strip_prefix(SCHEME)?;
    Some(parse(rest).map_err(|problem| IoError::JournalTarget {
        stream: stream.name(),
        uri: uri.to_owned(),
        problem,
    }))
}

fn parse(rest: &str) -> Result<Journal, &'static str> {
    const ENCODING: &str = "is not percent-encoded as a URI has to be";
    if rest.contains(['\0', '#']) {
        return Err(ENCODING);
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut journal = Journal::new();
    if !path.is_empty() {
        let path = PathBuf::from(uri::decode(path, false).ok_or(ENCODING)?);
        if !path.is_absolute() {
            return Err("names a socket by a path that is not absolute");
        }
        journal.socket = Some(path);
    }
    let mut options = uri::arguments(query).ok_or(ENCODING)?.into_iter();
    while let (Some(key), Some(value)) = (options.next(), options.next()) {
        let value = value.to_str().ok_or("has a value that is not UTF-8")?;
        match key.to_str() {
            Some("identifier") => journal.identifier = Some(identifier(value)?),
            Some("priority") => journal.priority = Some(priority(value)?),
            Some("level-prefix") => journal.level_prefix = switch(value)?,
            _ => {
                return Err("has an option that is none of identifier, priority and level-prefix");
            }
        }
    }
    Ok(journal)
}

fn identifier(value: &str) -> Result<String, &'static str> {
    if value.is_empty() || value.len() > 255 || value.contains(char::is_control) {
        return Err("has an identifier that is not 1 to 255 bytes without control characters");
    }
    Ok(value.to_owned())
}

fn priority(value: &str) -> Result<Priority, &'static str> {
    let found = PRIORITIES.iter().find(|(name, _)| *name == value);
    found.map(|&(_, priority)| priority).ok_or(
        "has a priority that is none of emerg, alert, crit, err, warning, notice, info, debug",
    )
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("has a level-prefix that is neither yes nor no"),
    }
}

/// Leaves what a path and a value may hold in a URI as it is.
fn encode(text: &OsStr) -> String {
    let mut encoded = String::new();
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::io::contract::StreamTarget;

    fn written(journal: &Journal) -> String {
        match journal.target() {
            StreamTarget::Uri(uri) => uri,
            other => panic!("{other:?}"),
        }
    }

    fn problem(uri: &str) -> String {
        match read(Stream::Stderr, uri) {
            Some(Err(error)) => error.to_string(),
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn the_plain_journal_is_a_plain_uri() {
        assert_eq!(written(&Journal::new()), "journald://");
        let full = Journal::new()
            .socket("/run/systemd/journal.batch/stdout")
            .identifier("a b&c")
            .priority(Priority::Warning)
            .level_prefix(false);
        assert_eq!(
            written(&full),
            "journald:///run/systemd/journal.batch/stdout\
             ?identifier=a%20b%26c&priority=warning&level-prefix=no"
        );
    }

    #[test]
    fn uris_of_other_schemes_are_not_journal_targets() {
        for uri in ["file:///a", "/a", "", "journald:", "journal://"] {
            assert!(read(Stream::Stdout, uri).is_none(), "{uri}");
        }
    }

    #[test]
    fn a_wrong_target_is_refused_with_what_is_wrong() {
        for (uri, wanted) in [
            ("journald://run/x", "not absolute"),
            ("journald:///run/x#y", "percent-encoded"),
            ("journald:///run/%zz", "percent-encoded"),
            ("journald://?identifier=%0a", "control characters"),
            ("journald://?identifier=", "1 to 255 bytes"),
            ("journald://?identifier=%ff", "UTF-8"),
            ("journald://?priority=loud", "emerg, alert, crit"),
            ("journald://?level-prefix=1", "yes nor no"),
            (
                "journald://?unit=x",
                "identifier, priority and level-prefix",
            ),
        ] {
            let problem = problem(uri);
            assert!(problem.contains(wanted), "{problem}");
            assert!(
                problem.starts_with("stderr: ") && problem.contains(uri),
                "{problem}"
            );
        }
    }

    fn journals() -> impl Strategy<Value = Journal> {
        let socket = proptest::option::of("/[^\0]{0,40}");
        let identifier = proptest::option::of("\\PC{1,40}");
        let priority = proptest::option::of(0..PRIORITIES.len());
        (socket, identifier, priority, any::<bool>()).prop_map(
            |(socket, identifier, priority, level_prefix)| Journal {
                socket: socket.map(PathBuf::from),
                identifier,
                priority: priority.map(|index| PRIORITIES[index].1),
                level_prefix,
            },
        )
    }

    proptest! {
        #[test]
        fn written_journal_target_parses_back(journal in journals()) {
            let uri = written(&journal);
            let read = read(Stream::Stdout, &uri).expect("a target of the journal");
            prop_assert_eq!(read.expect("a valid one"), journal);
        }
    }
}

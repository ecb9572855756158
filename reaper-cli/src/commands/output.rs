//! How commands print.

use std::io::Write;

use crate::{
    error::{Error, Result},
    log,
    text::printable_json,
};

/// Prints a value as JSON, for people to read as well.
pub(crate) fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Io {
        operation: "write JSON".into(),
        source: error.into(),
    })?;
    print(out, format_args!("{}\n", printable_json(&text)))
}

pub(crate) fn print(out: &mut dyn Write, text: std::fmt::Arguments<'_>) -> Result<()> {
    out.write_fmt(text)
        .and_then(|()| out.flush())
        .map_err(Error::io("write to stdout"))
}

/// Says something for people on stderr, and in the log, that does not end the command.
pub(crate) fn remark(text: &str) {
    tracing::warn!(target: log::PRINTED, "{text}");
    // stderr is the place to complain at; the exit code says it as well where it matters.
    let _ = writeln!(std::io::stderr(), "reaper-runtime: {text}");
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = "B";
    let (mut whole, mut rest) = (bytes, 0);
    for larger in UNITS {
        if whole < 1024 {
            break;
        }
        (whole, rest, unit) = (whole / 1024, whole % 1024, larger);
    }
    if unit == "B" || whole >= 10 {
        return format!("{whole} {unit}");
    }
    format!("{whole}.{} {unit}", rest * 10 / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1536, 10 << 10, 3 << 30, u64::MAX].map(size);
        let expected = [
            "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 KiB", "3.0 GiB", "15 EiB",
        ];
        assert_eq!(sizes, expected);
    }
}

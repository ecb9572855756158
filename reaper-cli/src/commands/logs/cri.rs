//! The logs of pods' containers: containerd writes them where the kubelet says, in the format of the CRI.
//!
//! <https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use reaper_spec::{ContainerId, CriAnnotations};
use reaper_state::Record;

use crate::host::ContainerEngine;

/// containerd notes on the sandbox where the logs of its pod are.
const LOG_DIRECTORY: &str = "io.kubernetes.cri.sandbox-log-directory";

/// The log of a pod's container: that of the last attempt, `CONTAINER/N.log` in the pod's directory.
pub(super) fn path(containers: &ContainerEngine, record: &Record) -> Option<PathBuf> {
    let cri = CriAnnotations::from_annotations(&record.annotations);
    let sandbox = ContainerId::new(cri.sandbox_id?).ok()?;
    let sandbox = containers.store().get(&sandbox).ok()?.record;
    let directory = sandbox.annotations.get(LOG_DIRECTORY)?;
    // A name with a slash is not one that Kubernetes gives.
    let name = cri.container_name.filter(|name| !name.contains('/'))?;
    let directory = PathBuf::from(directory).join(name);
    let attempts = fs::read_dir(&directory).ok()?.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(".log")?.parse::<u32>().ok()
    });
    Some(directory.join(format!("{}.log", attempts.max()?)))
}

/// Takes the lines of the CRI apart: `TIME STREAM F TEXT`, and with `P` one that the next line goes on.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end was not there yet.
    begun: Vec<u8>,
}

impl Lines {
    /// Writes to `out` what the container wrote.
    pub(super) fn to<'a>(&'a mut self, out: &'a mut dyn Write) -> impl Write {
        Text { lines: self, out }
    }
}

struct Text<'a> {
    lines: &'a mut Lines,
    out: &'a mut dyn Write,
}

impl Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.lines.begun.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.lines.begun);
                self.out.write_all(text(&line))?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What the container wrote, of a line with its end. A line that is not of the format is shown as it is.
fn text(line: &[u8]) -> &[u8] {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (Some(_time), Some(b"stdout" | b"stderr"), Some(tags), Some(text)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return line;
    };
    match tags.split(|byte| *byte == b':').next() {
        Some(b"P") => text.strip_suffix(b"\n").unwrap_or(text),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_strange_ones_shown_as_they_are() {
        let log = b"T stdout P long \nT stdout F line\nT stderr F \nT stdout F:x a  b\nnonsense\nT stdout F no end";
        for size in [1, 3, log.len()] {
            let mut lines = Lines::default();
            let mut out = Vec::new();
            for chunk in log.chunks(size) {
                lines.to(&mut out).write_all(chunk).unwrap();
            }
            assert_eq!(out, b"long line\n\na  b\nnonsense\n");
        }
    }
}

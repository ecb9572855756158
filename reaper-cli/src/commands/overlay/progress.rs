//! How far something is, on a terminal where it takes long.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use reaper_overlay::{Overlays, Progress as Seen, Scope};

use crate::{commands::output::size, error::Result, terminal, text::printable};

/// What ends sooner than that needs no bar.
const SHOWN_AFTER: Duration = Duration::from_millis(400);
/// How often the line is written at most.
const INTERVAL: Duration = Duration::from_millis(100);
/// How wide the bar is, in characters.
const BAR: usize = 24;

/// A line on stderr, if that is a terminal, that is gone when this is dropped.
pub(super) struct Progress {
    line: Option<Line<io::Stderr>>,
}

impl Progress {
    /// Of something that looks at all that `scope` holds.
    pub(super) fn start(what: &'static str, overlays: &Overlays, scope: &Scope) -> Result<Self> {
        // Counting is quick compared with reading. Without a terminal there is no bar to show.
        let mut counting = Self::of_unknown("counting");
        if counting.line.is_none() {
            return Ok(counting);
        }
        let usage = overlays.disk_usage(scope, &mut |seen| counting.show(&seen))?;
        drop(counting);
        Ok(Self::new(what, Some(usage.files)))
    }

    /// Of something of unknown length.
    pub(super) fn of_unknown(what: &'static str) -> Self {
        Self::new(what, None)
    }

    /// Of something that is done after `total` files.
    pub(super) fn new(what: &'static str, total: Option<u64>) -> Self {
        let line = io::stderr().is_terminal().then(|| Line {
            what,
            total,
            out: io::stderr(),
            next: Instant::now() + SHOWN_AFTER,
            shown: false,
        });
        Self { line }
    }

    pub(super) fn show(&mut self, seen: &Seen<'_>) {
        if let Some(line) = &mut self.line {
            let width = terminal::own_size().map_or(80, |size| size.width);
            line.show(Instant::now(), seen.files, seen.bytes, || {
                (seen.path.to_string_lossy().into_owned(), width.into())
            });
        }
    }
}

struct Line<W: Write> {
    what: &'static str,
    total: Option<u64>,
    out: W,
    next: Instant,
    shown: bool,
}

impl<W: Write> Line<W> {
    /// Writes the line if it is time to. `more` gives the path and the terminal's width.
    fn show(
        &mut self,
        now: Instant,
        files: u64,
        bytes: u64,
        more: impl FnOnce() -> (String, usize),
    ) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        self.shown = true;
        let (path, width) = more();
        let mut text = match self.total {
            Some(total) if total > 0 => {
                // More files than were counted may have come meanwhile.
                let done = files.min(total);
                let filled = usize::try_from(done * BAR as u64 / total).unwrap_or(BAR);
                let (full, empty) = ("#".repeat(filled), ".".repeat(BAR - filled));
                format!("{} [{full}{empty}] {} %", self.what, done * 100 / total)
            }
            _ => format!("{}: {files} files", self.what),
        };
        text.push_str(&format!(", {}  {}", size(bytes), printable(&path)));
        let text: String = text.chars().take(width.saturating_sub(1)).collect();
        // Nothing depends on it.
        let _ = write!(self.out, "\r{text}\x1b[K").and_then(|()| self.out.flush());
    }
}

impl<W: Write> Drop for Line<W> {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(self.out, "\r\x1b[K").and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(total: Option<u64>, steps: &[(u64, u64)]) -> String {
        let mut out = Vec::new();
        let start = Instant::now();
        let mut line = Line {
            what: "comparing",
            total,
            out: &mut out,
            next: start + SHOWN_AFTER,
            shown: false,
        };
        for &(after, files) in steps {
            let now = start + Duration::from_millis(after);
            line.show(now, files, files * 1024, || ("/a\nb".to_owned(), 60));
        }
        drop(line);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn progress_of_quick_operation_shows_nothing() {
        assert_eq!(shown(Some(9), &[(0, 1), (399, 9)]), "");
    }

    #[test]
    fn a_bar_grows_and_vanishes() {
        let text = shown(Some(4), &[(0, 0), (400, 1), (450, 2), (500, 9)]);
        let lines: Vec<_> = text.split('\r').collect();
        assert_eq!(
            lines[1..],
            [
                "comparing [######..................] 25 %, 1.0 KiB  /a\\nb\x1b[K",
                "comparing [########################] 100 %, 9.0 KiB  /a\\nb\x1b[K",
                "\x1b[K"
            ]
        );
    }

    #[test]
    fn without_a_total_it_counts_and_a_long_line_is_cut() {
        let text = shown(None, &[(400, 12)]);
        assert!(
            text.starts_with("\rcomparing: 12 files, 12 KiB  /a\\nb\x1b[K"),
            "{text:?}"
        );
        let mut out = Vec::new();
        let mut line = Line {
            what: "comparing",
            total: None,
            out: &mut out,
            next: Instant::now(),
            shown: false,
        };
        line.show(Instant::now() + INTERVAL, 1, 1, || ("/x".repeat(100), 20));
        drop(line);
        assert!(out.starts_with(b"\rcomparing: 1 files,\x1b[K"), "{out:?}");
    }
}

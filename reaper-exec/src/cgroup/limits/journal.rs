//! What was in the files of limits before they were changed, to be written back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::super::subtree;

/// What was in files before they were written to.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// With what to write to have it again.
    before: Vec<(PathBuf, String)>,
}

impl Journal {
    /// Notes what is in a file to which `value` is about to be written.
    pub(super) fn note(&mut self, file: &Path, value: &str) {
        // Where it can't be read it can't be restored either.
        let Ok(text) = fs::read_to_string(file) else {
            return;
        };
        self.before.push((file.to_owned(), previous(&text, value)));
    }

    /// Writes back what was there, the last change first. A value that depends on another is
    /// refused at first, and taken once the other is back.
    pub(super) fn restore(self) {
        let mut left = self.before;
        left.reverse();
        for _ in 0..2 {
            left.retain(|(file, value)| subtree::write_existing(file, value).is_err());
        }
    }
}

/// What to write so that a file with `text` has that again after `value` was written to it.
///
/// Files of devices have a line for each, of which the first word is the key: without a line there
/// was no limit.
fn previous(text: &str, value: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    // memory.oom_control has other names beside the one that is written.
    if let Some(disabled) = lines
        .iter()
        .find_map(|line| line.strip_prefix("oom_kill_disable "))
    {
        return disabled.to_owned();
    }
    let line = |key: &str| {
        let is_its = |line: &&&str| line.split(' ').next() == Some(key);
        lines.iter().find(is_its).map(|line| (*line).to_owned())
    };
    // Without a key a value is for all that have none of their own.
    let Some((key, rest)) = value.split_once(' ') else {
        return line("default").unwrap_or_else(|| text.trim().to_owned());
    };
    // Names of interfaces and of RDMA devices are known by the file, which lists all of them.
    match (line(key), rest.split_once('=')) {
        (Some(line), _) => line,
        (None, _) if !is_key(key) => text.trim().to_owned(),
        (None, Some((name, _))) => format!("{key} {name}=max"),
        (None, None) => format!("{key} 0"),
    }
}

/// Whether the first word of a value names a device, or is the word of `io.weight` for all others.
/// The quota of `cpu.max` is no such word.
fn is_key(word: &str) -> bool {
    word.contains(':') || word == "default"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previous_value_is_taken_from_what_file_shows() {
        for (text, value, expected) in [
            ("max\n", "100", "max"),
            ("max 100000\n", "5000 10000", "max 100000"),
            ("0-1\n", "0", "0-1"),
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "1", "0"),
            ("8:0 100\n8:16 7\n", "8:16 9", "8:16 7"),
            ("8:0 100\n", "8:16 9", "8:16 0"),
            ("", "8:16 rbps=9", "8:16 rbps=max"),
            (
                "8:16 rbps=5 wbps=max riops=max wiops=max\n",
                "8:16 rbps=9",
                "8:16 rbps=5 wbps=max riops=max wiops=max",
            ),
            ("default 100\n", "default 5", "default 100"),
            ("default 100\n8:0 50\n", "200", "default 100"),
            ("lo 0\neth0 3\n", "eth0 5", "eth0 3"),
            (
                "mlx4_0 hca_handle=max hca_object=max\nocrdma1 hca_handle=2 hca_object=max\n",
                "ocrdma1 hca_handle=7",
                "ocrdma1 hca_handle=2 hca_object=max",
            ),
        ] {
            assert_eq!(previous(text, value), expected, "{text:?} {value:?}");
        }
    }

    #[test]
    fn undo_restores_oldest_value_of_each_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("memory.max");
        fs::write(&file, "100\n").expect("a file");
        let mut journal = Journal::default();
        for value in ["200", "300"] {
            journal.note(&file, value);
            fs::write(&file, value).expect("a change");
        }
        journal.note(&dir.path().join("missing"), "1");
        journal.restore();
        assert_eq!(fs::read_to_string(&file).expect("the file"), "100");
    }
}

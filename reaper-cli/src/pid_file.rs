//! `--pid-file`.

use std::{fs, path::Path, process};

use crate::error::{Error, Result};

/// Writes `pid` into the file at `path`, so that a reader sees all of it or no file.
pub(crate) fn write(path: &Path, pid: u32) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::Option {
        option: "--pid-file",
        problem: format!("{} is no file's path", path.display()),
    })?;
    let staged = path.with_file_name(format!(".{}.{}", name.display(), process::id()));
    let written = fs::write(&staged, pid.to_string()).and_then(|()| fs::rename(&staged, path));
    written.map_err(|source| {
        // It may not have come into being; there is nothing else to be done about it.
        let _ = fs::remove_file(&staged);
        Error::Io {
            operation: format!("write the pid file {}", path.display()),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_pid_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        write(&path, 42).unwrap();
        write(&path, 43).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "43");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = write(Path::new("/nowhere/at/all/pid"), 1).unwrap_err();
        assert!(
            error.line().contains("/nowhere/at/all/pid"),
            "{}",
            error.line()
        );
    }
}

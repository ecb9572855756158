//! `logs`.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
    path::Path,
};

use reaper_exec::engine::Error as EngineError;
use reaper_state::Error as StoreError;
use rustix::fs::inotify;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    args::LogsArgs,
    container,
    error::{Error, Result},
    host::ContainerEngine,
    outcome::ExitAction,
    sys,
};

pub(crate) async fn run(
    containers: &ContainerEngine,
    args: &LogsArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let record = containers.state(&args.id).await?;
    let path = container::log_of(&record).ok_or_else(|| Error::NoLog(args.id.to_string()))?;
    let failed = || Error::io(format!("read the log {}", path.display()));
    let mut log = Log(File::open(path).map_err(failed())?);
    if let Some(lines) = args.tail {
        log.skip_to_last(lines).map_err(failed())?;
    }
    if !args.follow || !record.status.is_alive() {
        log.copy(out).map_err(failed())?;
        return Ok(ExitAction::DONE);
    }
    // Before it is read, or what is written in between would come late.
    let changes = Changes::of(path).map_err(failed())?;
    let mut ended = std::pin::pin!(containers.wait(&args.id));
    loop {
        log.copy(out).map_err(failed())?;
        tokio::select! {
            exit = &mut ended => {
                match exit {
                    // It was deleted meanwhile; the open file is still there.
                    Ok(_) | Err(EngineError::Store(StoreError::NotFound { .. })) => {}
                    Err(EngineError::Executor(reaper_exec::Error::NotFound(_))) => {}
                    Err(error) => return Err(error.into()),
                }
                log.copy(out).map_err(failed())?;
                return Ok(ExitAction::DONE);
            }
            changed = changes.wait() => changed.map_err(failed())?,
        }
    }
}

struct Log(File);

impl Log {
    /// Writes what there is from the current place on.
    fn copy(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let place = self.0.stream_position()?;
        if self.0.metadata()?.len() < place {
            // It was emptied, as logrotate's copytruncate does.
            self.0.rewind()?;
        }
        io::copy(&mut self.0, out)?;
        out.flush()
    }

    /// Goes to where the last `lines` lines begin.
    fn skip_to_last(&mut self, lines: u64) -> io::Result<()> {
        let length = self.0.seek(SeekFrom::End(0))?;
        let mut chunk = [0; 8192];
        let (mut place, mut ends) = (length, 0);
        while place > 0 {
            let size = place.min(chunk.len() as u64);
            place -= size;
            self.0.seek(SeekFrom::Start(place))?;
            let read = &mut chunk[..usize::try_from(size).unwrap_or_default()];
            self.0.read_exact(read)?;
            for (offset, _) in read
                .iter()
                .enumerate()
                .rev()
                .filter(|(_, byte)| **byte == b'\n')
            {
                let after = place + offset as u64 + 1;
                // The end of the last line is no beginning.
                if after == length {
                    continue;
                }
                ends += 1;
                if ends == lines {
                    self.0.seek(SeekFrom::Start(after))?;
                    return Ok(());
                }
            }
        }
        let start = if lines == 0 { length } else { 0 };
        self.0.seek(SeekFrom::Start(start))?;
        Ok(())
    }
}

/// Tells when a file was written to.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let notes = inotify::init(flags)?;
        inotify::add_watch(&notes, path, inotify::WatchFlags::MODIFY)?;
        Ok(Self(sys::watch(notes, Interest::READABLE)?))
    }

    async fn wait(&self) -> io::Result<()> {
        // More than one, each of which has no name behind it.
        let mut notes = [0; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut notes)?));
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found() {
        let tail = |text: &str, lines| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let mut log = Log(file);
            log.skip_to_last(lines).unwrap();
            let mut out = Vec::new();
            log.copy(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(tail("a\nb\nc\n", 1), "c\n");
        assert_eq!(tail("a\nb\nc", 1), "c");
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(tail("a\nb\n", 9), "a\nb\n");
        assert_eq!(tail("a\nb\n", 0), "");
        assert_eq!(tail("", 3), "");
        let long = format!("{}\n{}\n", "x".repeat(20_000), "y".repeat(20_000));
        assert_eq!(tail(&long, 1), format!("{}\n", "y".repeat(20_000)));
        assert_eq!(tail(&long, 2), long);
    }

    #[test]
    fn truncated_log_is_read_from_its_start() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"much text").unwrap();
        let mut log = Log(file.try_clone().unwrap());
        let mut out = Vec::new();
        log.0.rewind().unwrap();
        log.copy(&mut out).unwrap();
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(b"new").unwrap();
        log.0.seek(SeekFrom::Start(9)).unwrap();
        log.copy(&mut out).unwrap();
        assert_eq!(out, b"much textnew");
    }
}

//! `logs`.

mod cri;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use reaper_exec::engine::Error as EngineError;
use reaper_state::Error as StoreError;
use rustix::fs::inotify;
use tokio::io::{Interest, unix::AsyncFd};

use self::cri::Lines;
use super::{context::CommandContext, names::find};
use crate::{
    args::LogsArgs,
    container,
    error::{Error, Result},
    outcome::ExitAction,
    sys,
};

/// How long to wait for containerd to write the last output of a pod's container that has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn run(
    mut call: CommandContext,
    args: &LogsArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let id = &find(&mut call, &args.id).await?;
    let containers = &call.containers;
    let record = containers.state(id).await?;
    let mut log = match container::log_of(&record) {
        Some(path) => Log::open(path, None),
        None => {
            let path =
                cri::path(containers, &record).ok_or_else(|| Error::NoLog(id.to_string()))?;
            Log::open(&path, Some(Lines::default()))
        }
    }?;
    let path = log.path.clone();
    let failed = || Error::io(format!("read the log {}", path.display()));
    if let Some(lines) = args.tail {
        log.skip_to_last(lines).map_err(failed())?;
    }
    if !args.follow || !record.status.is_alive() {
        log.copy(out).map_err(failed())?;
        return Ok(ExitAction::DONE);
    }
    // Before it is read, or what is written in between would come late.
    let changes = Changes::of(&log).map_err(failed())?;
    let folder = containers.root().container(id).path().to_owned();
    if log.lines.is_some() {
        changes.add_end_of(&folder).map_err(failed())?;
    }
    let mut ended = std::pin::pin!(containers.wait(id));
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
                break;
            }
            changed = changes.wait() => changed.map_err(failed())?,
        }
    }
    if log.lines.is_some() {
        // containerd has the container deleted when it has written all that it reads from it. Where
        // containerd is away there is no more to come.
        let drained = async {
            while folder.exists() {
                log.copy(out)?;
                changes.wait().await?;
            }
            io::Result::Ok(())
        };
        if let Ok(drained) = tokio::time::timeout(DRAIN_TIMEOUT, drained).await {
            drained.map_err(failed())?;
        }
    }
    log.copy(out).map_err(failed())?;
    Ok(ExitAction::DONE)
}

struct Log {
    file: File,
    path: PathBuf,
    /// Of a file in the format of the CRI, which is rotated.
    lines: Option<Lines>,
}

impl Log {
    fn open(path: &Path, lines: Option<Lines>) -> Result<Self> {
        let file =
            File::open(path).map_err(Error::io(format!("read the log {}", path.display())))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            lines,
        })
    }

    /// Writes what there is from the current place on.
    fn copy(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.copy_file(out)?;
        while let Some(next) = self.next_file()? {
            // What was written to the full one until the next one was there.
            self.copy_file(out)?;
            self.file = next;
            self.copy_file(out)?;
        }
        out.flush()
    }

    fn copy_file(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let place = self.file.stream_position()?;
        if self.file.metadata()?.len() < place {
            // It was emptied, as logrotate's copytruncate does.
            self.file.rewind()?;
        }
        match &mut self.lines {
            None => io::copy(&mut self.file, out)?,
            Some(lines) => io::copy(&mut self.file, &mut lines.to(out))?,
        };
        Ok(())
    }

    /// The file that the kubelet has had containerd begin in the place of a full one.
    fn next_file(&self) -> io::Result<Option<File>> {
        if self.lines.is_none() {
            return Ok(None);
        }
        let next = match File::open(&self.path) {
            // The full one has been renamed, and the next one is not there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            next => next?,
        };
        let identity = |file: &File| file.metadata().map(|it| (it.dev(), it.ino()));
        Ok((identity(&next)? != identity(&self.file)?).then_some(next))
    }

    /// Goes to where the last `lines` lines begin.
    fn skip_to_last(&mut self, lines: u64) -> io::Result<()> {
        let length = self.file.seek(SeekFrom::End(0))?;
        let mut chunk = [0; 8192];
        let (mut place, mut ends) = (length, 0);
        while place > 0 {
            let size = place.min(chunk.len() as u64);
            place -= size;
            self.file.seek(SeekFrom::Start(place))?;
            let read = &mut chunk[..usize::try_from(size).unwrap_or_default()];
            self.file.read_exact(read)?;
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
                    self.file.seek(SeekFrom::Start(after))?;
                    return Ok(());
                }
            }
        }
        let start = if lines == 0 { length } else { 0 };
        self.file.seek(SeekFrom::Start(start))?;
        Ok(())
    }
}

/// Tells when a log was written to.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(log: &Log) -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let notes = inotify::init(flags)?;
        // A file that is rotated has a directory of its own, where the next one is made.
        let directory = log.path.parent().filter(|_| log.lines.is_some());
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
        inotify::add_watch(&notes, directory.unwrap_or(&log.path), events)?;
        Ok(Self(sys::watch(notes, Interest::READABLE)?))
    }

    /// Tells as well when this is removed, or was before.
    fn add_end_of(&self, folder: &Path) -> io::Result<()> {
        let events = inotify::WatchFlags::DELETE_SELF | inotify::WatchFlags::MOVE_SELF;
        match inotify::add_watch(self.0.get_ref(), folder, events) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            added => Ok(added.map(drop)?),
        }
    }

    async fn wait(&self) -> io::Result<()> {
        // More than one, each with a name of at most 256 bytes behind it.
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

    fn plain(file: File) -> Log {
        Log {
            file,
            path: PathBuf::new(),
            lines: None,
        }
    }

    #[test]
    fn the_last_lines_are_found() {
        let tail = |text: &str, lines| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let mut log = plain(file);
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
        let mut log = plain(file.try_clone().unwrap());
        let mut out = Vec::new();
        log.file.rewind().unwrap();
        log.copy(&mut out).unwrap();
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(b"new").unwrap();
        log.file.seek(SeekFrom::Start(9)).unwrap();
        log.copy(&mut out).unwrap();
        assert_eq!(out, b"much textnew");
    }

    #[test]
    fn a_log_of_a_pod_is_followed_into_the_file_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("T stdout F one\nT stdout P tw");
        let mut log = Log::open(&path, Some(Lines::default())).unwrap();
        let mut out = Vec::new();
        log.copy(&mut out).unwrap();
        assert_eq!(out, b"one\n", "the end of the second line is to come");
        let full = folder.path().join("0.log.20260101-000000");
        std::fs::rename(&path, &full).unwrap();
        let mut full = File::options().append(true).open(full).unwrap();
        full.write_all(b"o\n").unwrap();
        log.copy(&mut out).unwrap();
        full.write_all(b"T stderr F  and three\n").unwrap();
        write("T stdout F four\n");
        log.copy(&mut out).unwrap();
        assert_eq!(out, b"one\ntwo and three\nfour\n");
    }
}

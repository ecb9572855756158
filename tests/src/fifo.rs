//! FIFOs, and readers and writers of every temper.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::Mode,
    unistd::mkfifo,
};

use crate::{Node, runtime::LIMIT};

/// A FIFO, as a client of containerd makes it for a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fifo(PathBuf);

impl Node {
    /// Makes a FIFO of that name, mode 0700, in the node's work folder.
    pub fn fifo(&self, name: &str) -> Fifo {
        let path = self.work().join(name);
        mkfifo(&path, Mode::S_IRWXU).expect("make a FIFO");
        Fifo(path)
    }
}

impl AsRef<Path> for Fifo {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Fifo {
    /// Begins to read to the end, once there is a writer. It is open when this returns: the output
    /// of a process that was deleted before its reader came is lost.
    pub fn read(&self) -> Reading {
        let mut file = self.open_reader();
        let (done, result) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // Until there was a writer, to read is to find the end.
            let writer = poll(
                &mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)],
                PollTimeout::NONE,
            );
            let read = writer
                .map_err(Into::into)
                .and_then(|_| file.read_to_end(&mut bytes));
            // Nobody listens any more when the test has failed in between.
            let _ = done.send(read.map(|_| bytes));
        });
        Reading(result)
    }

    /// Opens it for reading, without waiting for a writer, and reads nothing.
    pub fn open_reader(&self) -> File {
        self.open(OpenOptions::new().read(true))
            .expect("open a FIFO")
    }

    /// Opens it for writing. Fails if nobody has it open for reading.
    pub fn open_writer(&self) -> std::io::Result<File> {
        self.open(OpenOptions::new().write(true))
    }

    fn open(&self, options: &mut OpenOptions) -> std::io::Result<File> {
        let file = options
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&self.0)?;
        // What is opened without waiting waits when it is read or written. A second open would wait for ever
        // for a reader that has gone in between.
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(file)
    }
}

/// A FIFO being read to its end.
#[derive(Debug)]
pub struct Reading(mpsc::Receiver<std::io::Result<Vec<u8>>>);

impl Reading {
    /// All bytes up to the end.
    #[track_caller]
    pub fn finish(self) -> Vec<u8> {
        match self.0.recv_timeout(LIMIT) {
            Ok(read) => read.expect("read a FIFO"),
            Err(_) => panic!("no end of a FIFO within {LIMIT:?}"),
        }
    }

    /// All text up to the end.
    #[track_caller]
    pub fn text(self) -> String {
        String::from_utf8(self.finish()).expect("text in UTF-8")
    }
}

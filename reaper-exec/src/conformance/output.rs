//! A client that reads an output by a FIFO.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tokio::net::unix::pipe;

use crate::io::{StdioRequest, StreamTarget};

/// How long an output may stay open; only an executor that leaves it open takes so long.
const LIMIT: Duration = Duration::from_secs(10);

/// The reader of a FIFO, which exists as long as this does.
pub(super) struct OutputReader {
    path: PathBuf,
    reader: pipe::Receiver,
}

impl OutputReader {
    /// Streams whose output goes to a new FIFO in `folder`, and its reader.
    pub(super) fn below(folder: &Path) -> (StdioRequest, Self) {
        let path = folder.join(".output");
        mkfifo(&path, Mode::S_IRWXU).expect("make a FIFO");
        let reader = pipe::OpenOptions::new().open_receiver(&path);
        let reader = reader.expect("open a FIFO");
        let mut stdio = StdioRequest::default();
        let text = path.to_str().expect("a path in UTF-8").to_owned();
        stdio.streams.stdout = StreamTarget::Uri(text);
        (stdio, Self { path, reader })
    }

    /// Waits until something was written.
    pub(super) async fn something(&mut self) {
        assert!(self.read().await > 0, "the output ended with nothing in it");
    }

    /// Waits for the end of the output.
    pub(super) async fn end(&mut self) {
        let ended = tokio::time::timeout(LIMIT, async { while self.read().await > 0 {} });
        ended.await.expect("the output is left open");
    }

    async fn read(&mut self) -> usize {
        loop {
            self.reader.readable().await.expect("wait for output");
            match self.reader.try_read(&mut [0; 1024]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.expect("read the output"),
            }
        }
    }
}

impl Drop for OutputReader {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

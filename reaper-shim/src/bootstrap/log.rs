//! Where the daemon logs.
//!
//! containerd reads a FIFO `log` in the bundle and copies it to its own log: for warnings. The
//! file that the configuration names gets more. Neither can block the shim, or make it fail.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use nix::fcntl::OFlag;
use reaper_spec::LogConfig;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan,
};

use crate::{Error, Result};

/// Relative to the bundle, which is the daemon's working directory.
const FIFO: &str = "log";
/// What goes into a pipe in one piece, or not at all.
const PIPE_BUF: usize = 4096;

pub(super) fn init(config: &LogConfig, debug: bool) -> Result<()> {
    let level = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    let to_containerd = open_fifo(Path::new(FIFO)).map(|writer| layer(writer).with_filter(level));
    let to_file = match &config.shim {
        Some(path) => {
            let level = config
                .level
                .as_deref()
                .unwrap_or(if debug { "debug" } else { "info" });
            Some(layer(open_file(path)?).with_filter(EnvFilter::new(level)))
        }
        None => None,
    };
    let subscriber = tracing_subscriber::registry()
        .with(to_containerd)
        .with(to_file);
    // Only an embedder's own subscriber can be there already, and then it is the one to use.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(())
}

fn layer<S>(writer: Lossy) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(writer)
}

/// Opened for reading too, a FIFO neither waits for a reader nor breaks when the reader,
/// containerd, restarts: what was written meanwhile is kept for it, as far as it fits.
fn open_fifo(path: &Path) -> Option<Lossy> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .ok()?;
    file.metadata()
        .is_ok_and(|found| found.file_type().is_fifo())
        .then(|| Lossy(Arc::new(file)))
}

fn open_file(path: &Path) -> Result<Lossy> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map(|file| Lossy(Arc::new(file)))
        .map_err(|source| Error::File {
            operation: "open the log",
            path: path.to_owned(),
            source,
        })
}

/// Writes a line in one piece or drops it.
#[derive(Clone)]
struct Lossy(Arc<File>);

impl Write for Lossy {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.len() <= PIPE_BUF {
            let _ = (&*self.0).write(line);
        } else {
            let mut cut = line[..PIPE_BUF - 1].to_vec();
            cut.push(b'\n');
            let _ = (&*self.0).write(&cut);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lossy {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

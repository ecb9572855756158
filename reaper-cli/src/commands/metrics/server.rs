//! A server that Prometheus reads from.
//!
//! It knows one resource and closes each connection, so it needs no HTTP library. A client can cost it a bounded
//! amount: of its connections, of the time of each, and of work, as figures are collected at most every
//! [`FRESH`].

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Mutex,
    time::timeout,
};

use super::{collect::collect, text::CONTENT_TYPE};
use crate::{
    args::Listen,
    commands::{context::CommandContext, output::remark},
    error::{Error, Result},
    outcome::ExitAction,
};

/// How many clients are served at a time. Others wait in the kernel's queue.
const CLIENTS: usize = 16;
/// How long a client may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest request.
const MAX_REQUEST: usize = 8 * 1024;
/// For how long figures are not collected anew.
const FRESH: Duration = Duration::from_secs(2);

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What was collected last.
type Collected = Mutex<Option<(Instant, String)>>;

/// Serves until it is killed.
pub(super) async fn serve(call: &CommandContext, listen: &Listen) -> Result<ExitAction> {
    let (listener, name) = open(listen).await?;
    remark(&format!("metrics are served at {name}"));
    let collected = Collected::default();
    let mut clients = FuturesUnordered::new();
    loop {
        tokio::select! {
            client = listener.accept(), if clients.len() < CLIENTS => match client {
                Ok(client) => clients.push(answer(call, client, &collected)),
                // The client has gone again, or this process has no descriptor left: others have to end first.
                Err(error) => {
                    tracing::warn!("accept a connection: {error}");
                    match clients.next().await {
                        Some(_) => {}
                        None if is_passing(&error) => {}
                        None => return Err(Error::io("accept a connection")(error)),
                    }
                }
            },
            Some(()) = clients.next() => {}
        }
    }
}

/// Whether an error of accept(2) is about one connection.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

async fn open(listen: &Listen) -> Result<(Listener, String)> {
    match listen {
        Listen::Tcp(address) => {
            let failed = Error::io(format!("listen on {address}"));
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            // Of port 0 the kernel has made one.
            let bound = listener.local_addr().unwrap_or(*address);
            Ok((Listener::Tcp(listener), format!("http://{bound}/metrics")))
        }
        Listen::Unix(path) => {
            let failed = Error::io(format!("listen on {}", path.display()));
            let listener = listen_on(path).map_err(failed)?;
            Ok((Listener::Unix(listener), path.display().to_string()))
        }
    }
}

/// Listens on a socket for this user alone. One that a server left that was killed is replaced.
fn listen_on(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if is_socket {
        let connected = std::os::unix::net::UnixStream::connect(path);
        if connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            fs::remove_file(path)?;
        }
    }
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(umask);
    listener
}

impl Listener {
    async fn accept(&self) -> io::Result<Client> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(it, _)| Client::Tcp(it)),
            Self::Unix(listener) => listener.accept().await.map(|(it, _)| Client::Unix(it)),
        }
    }
}

impl Client {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_read(buffer)
                }
                Self::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_read(buffer)
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Tcp(stream) => {
                    stream.writable().await?;
                    stream.try_write(bytes)
                }
                Self::Unix(stream) => {
                    stream.writable().await?;
                    stream.try_write(bytes)
                }
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written?..],
            }
        }
        Ok(())
    }

    /// The first line of the request, once all of its head is there.
    async fn request(&self) -> io::Result<Option<String>> {
        let mut head = Vec::new();
        let mut buffer = [0; 1024];
        while head.len() <= MAX_REQUEST {
            let read = self.read(&mut buffer).await?;
            if read == 0 {
                return Ok(None);
            }
            head.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&head);
            if text.contains("\r\n\r\n") || text.contains("\n\n") {
                return Ok(text.lines().next().map(str::to_owned));
            }
        }
        Ok(None)
    }
}

/// Answers one request. Errors of the connection are the client's.
async fn answer(call: &CommandContext, client: Client, collected: &Collected) {
    let Ok(Ok(Some(request))) = timeout(PATIENCE, client.request()).await else {
        return;
    };
    let mut words = request.split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        (Some("GET" | "HEAD"), "/metrics") => match figures(call, collected).await {
            Ok(text) => ("200 OK", text),
            Err(error) => {
                let line = error.line();
                tracing::warn!("collect metrics: {line}");
                ("500 Internal Server Error", format!("{line}\n"))
            }
        },
        (Some("GET" | "HEAD"), _) => ("404 Not Found", "see /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET /metrics\n".to_owned()),
    };
    let kind = if status == "200 OK" {
        CONTENT_TYPE
    } else {
        "text/plain; charset=utf-8"
    };
    let length = body.len();
    let body = if method == Some("HEAD") { "" } else { &body };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = timeout(PATIENCE, client.write_all(text.as_bytes())).await;
}

async fn figures(call: &CommandContext, collected: &Collected) -> Result<String> {
    let mut last = collected.lock().await;
    if let Some((at, text)) = &*last
        && at.elapsed() < FRESH
    {
        return Ok(text.clone());
    }
    let text = collect(call).await?;
    *last = Some((Instant::now(), text.clone()));
    Ok(text)
}

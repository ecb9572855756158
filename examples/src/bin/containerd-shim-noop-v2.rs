//! A containerd shim that does nothing at all.
//!
//! It says yes to all that it takes to run a task, and the task has ended as soon as it was
//! started. So the time of a `ctr run` with it is what containerd itself costs, and a real shim
//! can be measured against that; it also shows how little a shim needs:
//!
//! * `start` makes a socket, starts the same program again as a server on it, and prints the
//!   socket's address. containerd reads until the last copy of the output is closed.
//! * `delete` cleans up after a server that is gone, and prints an encoded `DeleteResponse`.
//! * The server answers the task service, here as `containerd.task.v2.Task`, the name that every
//!   containerd since 1.3 knows.
//!
//! ```sh
//! ctr run --rm --runtime /path/to/containerd-shim-noop-v2 IMAGE ID true
//! ```

use std::{
    env, fs,
    hash::Hasher as _,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixListener, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
        DeleteResponse, Empty, ShutdownRequest, StartRequest, StartResponse, StateRequest,
        StateResponse, Status, WaitRequest, WaitResponse,
    },
    shim_async::{Task, create_task},
    ttrpc::r#async::{Server, TtrpcContext},
};
use siphasher::sip::SipHasher13;
use tokio::sync::{Notify, watch};

/// How the server is asked for; containerd never says this.
const SERVE: &str = "serve";
/// Where shims have their sockets.
const SOCKETS: &str = "/run/containerd/s";

/// What a call of the task service gives.
type Answer<T> = containerd_shim_protos::ttrpc::Result<T>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.last().map(String::as_str) {
        Some("start") => start(&socket_path(&arguments)),
        Some("delete") => delete(&socket_path(&arguments)),
        Some(SERVE) => serve(),
        _ => Err(io::Error::other(
            "usage: containerd-shim-noop-v2 -id ID … start|delete",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-shim-noop-v2: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A socket for each task of each namespace of each containerd; short, for `sun_path`.
fn socket_path(arguments: &[String]) -> PathBuf {
    let mut hasher = SipHasher13::new();
    for flag in ["-address", "-namespace", "-id"] {
        let value = arguments
            .iter()
            .skip_while(|argument| *argument != flag)
            .nth(1);
        hasher.write(value.map_or(&[][..], |value| value.as_bytes()));
        // Where one ends and the next begins.
        hasher.write_u8(0);
    }
    PathBuf::from(SOCKETS).join(format!("noop-{:016x}", hasher.finish()))
}

fn start(socket: &PathBuf) -> io::Result<()> {
    fs::create_dir_all(SOCKETS)?;
    let listener = UnixListener::bind(socket)?;
    // The server finds the socket as its input. It must not keep containerd's pipe.
    Command::new(env::current_exe()?)
        .arg(SERVE)
        .env("NOOP_SOCKET", socket)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    print!("unix://{}", socket.display());
    io::stdout().flush()
}

fn delete(socket: &PathBuf) -> io::Result<()> {
    // An empty message is a `DeleteResponse` without anything to say, so nothing is printed.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve() -> io::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let shim = Arc::new(Noop::default());
    let services = create_task(Arc::clone(&shim) as Arc<dyn Task + Send + Sync>)
        .into_values()
        .map(|service| ("containerd.task.v2.Task".to_owned(), service))
        .collect();
    let mut server = Server::new()
        .add_listener(listener.into())
        .register_service(services);
    server.start().await.map_err(io::Error::other)?;
    shim.shutdown.notified().await;
    if let Some(socket) = env::var_os("NOOP_SOCKET") {
        fs::remove_file(socket)?;
    }
    // The answer to the shutdown leaves before the connections are closed.
    server.shutdown().await.map_err(io::Error::other)
}

/// One task, which ends when it is started.
#[derive(Default)]
struct Noop {
    started: watch::Sender<bool>,
    shutdown: Notify,
}

impl Noop {
    fn pid(&self) -> u32 {
        std::process::id()
    }
}

#[async_trait]
impl Task for Noop {
    async fn create(&self, _: &TtrpcContext, _: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        Ok(CreateTaskResponse {
            pid: self.pid(),
            ..Default::default()
        })
    }

    async fn start(&self, _: &TtrpcContext, _: StartRequest) -> Answer<StartResponse> {
        self.started.send_replace(true);
        Ok(StartResponse {
            pid: self.pid(),
            ..Default::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Answer<StateResponse> {
        let status = if *self.started.borrow() {
            Status::STOPPED
        } else {
            Status::CREATED
        };
        Ok(StateResponse {
            id: request.id,
            pid: self.pid(),
            status: status.into(),
            ..Default::default()
        })
    }

    async fn wait(&self, _: &TtrpcContext, _: WaitRequest) -> Answer<WaitResponse> {
        // It fails only when the sender is gone, which this method's own borrow keeps.
        let _ = self.started.subscribe().wait_for(|&started| started).await;
        Ok(WaitResponse::default())
    }

    async fn delete(&self, _: &TtrpcContext, _: DeleteRequest) -> Answer<DeleteResponse> {
        Ok(DeleteResponse {
            pid: self.pid(),
            ..Default::default()
        })
    }

    async fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> Answer<ConnectResponse> {
        Ok(ConnectResponse {
            shim_pid: self.pid(),
            task_pid: self.pid(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Answer<Empty> {
        self.shutdown.notify_one();
        Ok(Empty::default())
    }
}

//! The receiving end of a shim's events: as little as possible between the socket and the clock.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

use containerd_shim_protos::{
    api::ForwardRequest,
    events::task::TaskExit,
    protobuf::Message as _,
    ttrpc::{Request, Response},
};
use reaper_tests::runtime::LIMIT;

/// A ttrpc header: length, stream, type, flags.
const HEADER: usize = 10;
/// The header's type of an answer.
const ANSWER: u8 = 2;

/// When the exits of init processes were heard of, by container.
type Exits = (Mutex<HashMap<String, Instant>>, Condvar);

/// A server of `containerd.services.events.ttrpc.v1.Events`, on a thread for each connection.
#[derive(Debug)]
pub(crate) struct EventServer {
    path: PathBuf,
    exits: Arc<Exits>,
}

impl EventServer {
    /// Serves on a socket until this program ends.
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("make the event socket");
        let exits = Arc::new(Exits::default());
        let heard = Arc::clone(&exits);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let heard = Arc::clone(&heard);
                // A connection ends with its shim.
                thread::spawn(move || serve(connection, &heard));
            }
        });
        Self {
            path: path.to_owned(),
            exits,
        }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// When the exit of a container's init process arrived here; waits for it.
    pub(crate) fn exit_of(&self, container: &str) -> Instant {
        let (exits, changed) = &*self.exits;
        let exits = exits.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut exits, _) = changed
            .wait_timeout_while(exits, LIMIT, |exits| !exits.contains_key(container))
            .unwrap_or_else(PoisonError::into_inner);
        exits
            .remove(container)
            .unwrap_or_else(|| panic!("no exit of {container} in {LIMIT:?}"))
    }
}

fn serve(mut connection: UnixStream, heard: &Exits) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER];
        connection.read_exact(&mut header)?;
        let [a, b, c, d, stream @ ..] = header;
        let mut body = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
        connection.read_exact(&mut body)?;
        let now = Instant::now();
        note(&body, now, heard)?;
        let answer = Response::new().write_to_bytes()?;
        let length = u32::try_from(answer.len())
            .map_err(io::Error::other)?
            .to_be_bytes();
        let mut frame = length.to_vec();
        frame.extend_from_slice(&stream[..4]);
        frame.extend_from_slice(&[ANSWER, 0]);
        frame.extend_from_slice(&answer);
        connection.write_all(&frame)?;
    }
}

fn note(body: &[u8], now: Instant, (exits, changed): &Exits) -> io::Result<()> {
    let request = Request::parse_from_bytes(body)?;
    let forward = ForwardRequest::parse_from_bytes(&request.payload)?;
    let envelope = forward.envelope.unwrap_or_default();
    if envelope.topic == "/tasks/exit" {
        let exit = TaskExit::parse_from_bytes(&envelope.event.unwrap_or_default().value)?;
        if exit.id == exit.container_id {
            exits
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(exit.container_id, now);
            changed.notify_all();
        }
    }
    Ok(())
}

//! The published contract of streams, on the collector's.

use std::os::unix::net::UnixListener;

use reaper_exec::io::conformance::{self, Client, Output as Reading, Subject};

use super::*;

/// A collector of one output.
#[derive(Debug)]
struct Listener {
    listener: UnixListener,
    connection: Option<UnixStream>,
}

impl std::os::fd::AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.connection {
            Some(connection) => connection.as_fd(),
            None => self.listener.as_fd(),
        }
    }
}

impl Reading for Listener {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let (connection, _) = self.listener.accept()?;
                connection.set_nonblocking(true)?;
                self.connection.insert(connection)
            }
        };
        let mut bytes = vec![0; 64 * 1024];
        let read = connection.read(&mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

#[test]
fn it_keeps_the_contract() {
    conformance::run(|| {
        let folder = tempfile::tempdir().unwrap();
        Subject::new(Collector(StandardBinder::new()), folder.path())
            .connecting(|path| {
                let mut client = Client::of_fifos(path);
                let socket = path.with_extension("socket");
                let listener = UnixListener::bind(&socket).unwrap();
                listener.set_nonblocking(true).unwrap();
                let target = format!("{SCHEME}{}", socket.display());
                client.stdio.streams.stdout = StreamTarget::Uri(target);
                client.output = Box::new(Listener {
                    listener,
                    connection: None,
                });
                client
            })
            .without_terminals()
            .keeping(folder)
    });
}

#[test]
fn it_keeps_the_contract_for_what_it_does_not_bind() {
    conformance::run(|| {
        let folder = tempfile::tempdir().unwrap();
        Subject::new(Collector(StandardBinder::new()), folder.path()).keeping(folder)
    });
}

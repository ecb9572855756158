//! As much of D-Bus as it takes to ask systemd for a scope.
//!
//! A whole client (zbus with its runtime, or libdbus in C) would be the largest dependency of the
//! monitor, for one request. systemd's private socket needs no bus daemon: each message is between
//! two ends. The format is that of the D-Bus Specification, "Message Protocol", in little endian.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

/// The longest message that is read: longer ones are no answer to what is asked here.
const LONGEST: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Values that are being marshalled.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn string(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements are aligned to `alignment`.
    pub(super) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Fields of a header: the code, the kind and the text of each.
    fn texts(&mut self, fields: &[(u8, &str, &str)]) {
        for (code, kind, text) in fields {
            self.align(8);
            self.0.push(*code);
            self.signature(kind);
            self.string(text);
        }
    }

    /// A structure of a name and a variant.
    pub(super) fn property(&mut self, name: &str, signature: &str, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.string(name);
        self.signature(signature);
        value(self);
    }
}

/// A message with these fields in its header.
fn message(kind: u8, serial: u32, body: &Body, fields: impl FnOnce(&mut Body)) -> Vec<u8> {
    let mut message = Body(vec![b'l', kind, 0, 1]);
    message.u32(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    message.u32(serial);
    message.array(8, fields);
    message.align(8);
    message.0.extend(&body.0);
    message.0
}

/// A message that was read.
#[derive(Debug)]
pub(super) struct Message {
    kind: u8,
    reply_to: Option<u32>,
    pub(super) member: String,
    error: String,
    pub(super) body: Vec<u8>,
}

#[cfg(test)]
impl Message {
    /// A message as the other end sends it: its kind, its fields that are texts, and the serial that it
    /// answers.
    pub(super) fn to_bytes(
        kind: u8,
        texts: &[(u8, &str, &str)],
        reply_to: Option<u32>,
        body: &Body,
    ) -> Vec<u8> {
        message(kind, 9, body, |fields| {
            fields.texts(texts);
            if let Some(serial) = reply_to {
                fields.align(8);
                fields.0.push(5);
                fields.signature("u");
                fields.u32(serial);
            }
        })
    }
}

/// A connection to a service that is at the other end itself, for a limited time.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    serial: u32,
    deadline: Instant,
}

impl Connection {
    /// Connects to `path` as the user that this process runs as. All that is done with the connection, this
    /// included, takes `limit` at most, however little at a time the other end does.
    pub(super) fn open(path: &Path, limit: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + limit;
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // The other end may not accept, and then its queue is full (unix(7), SO_SNDTIMEO of socket(7)).
        set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
        connect(&socket, &SocketAddrUnix::new(path)?).map_err(|error| timed_out(error.into()))?;
        let mut connection = Self {
            socket: socket.into(),
            serial: 0,
            deadline,
        };
        connection.authenticate()?;
        Ok(connection)
    }

    fn authenticate(&mut self) -> io::Result<()> {
        let uid = nix::unistd::geteuid().to_string();
        let uid: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") && line.len() < 1024 {
            self.read(&mut byte)?;
            line.extend(byte);
        }
        if !line.starts_with(b"OK ") {
            let answer = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(io::Error::other(format!("not authenticated: {answer}")));
        }
        self.write(b"BEGIN\r\n")
    }

    /// The time that is left.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(timed_out(ErrorKind::WouldBlock.into())),
            false => Ok(left),
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.socket.set_write_timeout(Some(self.left()?))?;
            match self.socket.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error)),
            }
        }
        Ok(())
    }

    /// Fills `bytes`.
    fn read(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.socket.set_read_timeout(Some(self.left()?))?;
            match self.socket.read(bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => bytes = &mut bytes[read..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error)),
            }
        }
        Ok(())
    }

    /// Calls a method, and returns the body of its answer. Signals that come before it are passed to
    /// `signal`.
    pub(super) fn call(
        &mut self,
        [destination, path, interface, member]: [&str; 4],
        signature: &str,
        body: &Body,
        mut signal: impl FnMut(Message),
    ) -> io::Result<Vec<u8>> {
        self.serial += 1;
        let serial = self.serial;
        let call = message(METHOD_CALL, serial, body, |fields| {
            fields.texts(&[
                (1, "o", path),
                (2, "s", interface),
                (3, "s", member),
                (6, "s", destination),
            ]);
            fields.align(8);
            fields.0.push(8);
            fields.signature("g");
            fields.signature(signature);
        });
        self.write(&call)?;
        loop {
            let message = self.next()?;
            match message.kind {
                METHOD_RETURN if message.reply_to == Some(serial) => return Ok(message.body),
                ERROR if message.reply_to == Some(serial) => {
                    let text = Reader::new(&message.body).string().unwrap_or_default();
                    return Err(io::Error::other(format!("{}: {text}", message.error)));
                }
                SIGNAL => signal(message),
                _ => {}
            }
        }
    }

    /// Waits for the next signal.
    pub(super) fn next_signal(&mut self) -> io::Result<Message> {
        loop {
            let message = self.next()?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    fn next(&mut self) -> io::Result<Message> {
        let mut head = [0; 16];
        self.read(&mut head)?;
        let number = |at: usize| {
            let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let (body, fields) = (number(4), number(12));
        if head[0] != b'l' || body > LONGEST || fields > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.read(&mut rest)?;
        let mut message = Message {
            kind: head[1],
            reply_to: None,
            member: String::new(),
            error: String::new(),
            body: rest.split_off(fields.next_multiple_of(8)),
        };
        rest.truncate(fields);
        let mut reader = Reader::new(&rest);
        // A field of a kind that is not known ends the list for this reader.
        while let Some(code) = reader.field() {
            match (code, reader.signature().as_deref()) {
                (5, Some("u")) => message.reply_to = reader.u32(),
                (3, Some("s")) => message.member = reader.string().unwrap_or_default(),
                (4, Some("s")) => message.error = reader.string().unwrap_or_default(),
                (_, Some("s" | "o")) => drop(reader.string()),
                (_, Some("g")) => drop(reader.signature()),
                (_, Some("u")) => drop(reader.u32()),
                _ => break,
            }
        }
        Ok(message)
    }
}

/// A timeout of a socket is `EAGAIN`, which says little.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "no answer in time"),
        _ => error,
    }
}

/// Reads marshalled values: `None` where there are none.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn field(&mut self) -> Option<u8> {
        self.at = self.at.next_multiple_of(8);
        self.take(1).map(|code| code[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.at = self.at.next_multiple_of(4);
        let bytes = self.take(4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    pub(super) fn string(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let text = self.take(length.checked_add(1)?)?;
        String::from_utf8(text[..length].to_vec()).ok()
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.take(1)?[0]);
        let text = self.take(length + 1)?;
        String::from_utf8(text[..length].to_vec()).ok()
    }
}

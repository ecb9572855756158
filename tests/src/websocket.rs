//! The CRI's streaming server, as `kubectl exec`, `attach` and `port-forward` reach it.

use std::{
    collections::BTreeMap,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tungstenite::{
    Error, Message, WebSocket, client::IntoClientRequest, handshake::client::generate_key,
};

use crate::runtime::LIMIT;

/// The protocol in which each message begins with the number of its channel.
const CHANNELS: &str = "v4.channel.k8s.io";

/// The input of an exec or attach.
pub const STDIN: u8 = 0;
/// The output of an exec or attach.
pub const STDOUT: u8 = 1;
/// The error output of an exec or attach.
pub const STDERR: u8 = 2;
/// How an exec has ended.
pub const STATUS: u8 = 3;
/// Changes of a terminal's size.
pub const RESIZE: u8 = 4;

/// A session of several channels.
#[derive(Debug)]
pub struct Session {
    socket: WebSocket<TcpStream>,
    received: BTreeMap<u8, Vec<u8>>,
    closed: bool,
}

impl Session {
    /// Begins a session at an address that the CRI has given out.
    pub fn open(url: &str) -> Self {
        let address = url.strip_prefix("http://").expect("an http address");
        let host = address.split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(host).expect("connect to the streaming server");
        // Short, so that a read can be given up and a write come in between.
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("set a read timeout");
        let mut request = format!("ws://{address}")
            .into_client_request()
            .expect("a request");
        let headers = request.headers_mut();
        headers.insert(
            "Sec-WebSocket-Protocol",
            CHANNELS.parse().expect("a header"),
        );
        headers.insert(
            "Sec-WebSocket-Key",
            generate_key().parse().expect("a header"),
        );
        let mut handshake = tungstenite::client(request, stream);
        let socket = loop {
            match handshake {
                Ok((socket, _)) => break socket,
                Err(tungstenite::HandshakeError::Interrupted(middle)) => {
                    handshake = middle.handshake();
                }
                Err(tungstenite::HandshakeError::Failure(error)) => panic!("{url}: {error}"),
            }
        };
        Self {
            socket,
            received: BTreeMap::new(),
            closed: false,
        }
    }

    /// Sends bytes on a channel.
    pub fn send(&mut self, channel: u8, bytes: &[u8]) {
        let mut message = vec![channel];
        message.extend_from_slice(bytes);
        self.socket
            .send(Message::binary(message))
            .expect("send a message");
    }

    /// Changes the size of the session's terminal.
    pub fn resize(&mut self, columns: u16, lines: u16) {
        let size = json!({ "Width": columns, "Height": lines }).to_string();
        self.send(RESIZE, size.as_bytes());
    }

    /// Waits until `text` was received on a channel, and returns all that was.
    #[track_caller]
    pub fn expect(&mut self, channel: u8, text: &str) -> String {
        self.read_until(|session| session.text(channel).contains(text) || session.closed);
        let received = self.text(channel);
        assert!(
            received.contains(text),
            "no {text:?} on channel {channel}: {received:?}"
        );
        received
    }

    /// Waits for the server to end the session.
    pub fn finish(&mut self) {
        self.read_until(|session| session.closed);
    }

    /// What was received on a channel so far.
    pub fn bytes(&self, channel: u8) -> &[u8] {
        self.received.get(&channel).map_or(&[], Vec::as_slice)
    }

    /// What was received on a channel so far, as text.
    pub fn text(&self, channel: u8) -> String {
        String::from_utf8_lossy(self.bytes(channel)).into_owned()
    }

    /// The exit code that the status channel told; 0 for success.
    pub fn exit_code(&self) -> Option<i32> {
        let status: Value = serde_json::from_slice(self.bytes(STATUS)).ok()?;
        if status["status"] == "Success" {
            return Some(0);
        }
        let causes = status["details"]["causes"].as_array()?;
        let code = causes.iter().find(|cause| cause["reason"] == "ExitCode")?;
        code["message"].as_str()?.parse().ok()
    }

    fn read_until(&mut self, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(
                start.elapsed() < LIMIT,
                "nothing more within {LIMIT:?}: {:?}",
                self.received
            );
            match self.socket.read() {
                Ok(Message::Binary(message)) => {
                    if let Some((&channel, bytes)) = message.split_first() {
                        self.received
                            .entry(channel)
                            .or_default()
                            .extend_from_slice(bytes);
                    }
                }
                Ok(Message::Close(_)) => self.closed = true,
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => self.closed = true,
            }
        }
    }
}

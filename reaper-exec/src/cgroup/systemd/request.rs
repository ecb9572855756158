//! The request for a scope: `StartTransientUnit` of systemd's D-Bus API, until its job is done.

use std::{io, path::Path, time::Duration};

use super::{
    super::dbus::{Body, Connection, Message, Reader},
    Scope,
};

/// How long it may take to start a scope.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

impl Scope {
    pub(super) fn start_at(&self, socket: &Path, pid: u32, limit: Duration) -> io::Result<()> {
        let mut connection = Connection::open(socket, limit)?;
        let mut body = Body::default();
        body.string(&self.unit);
        body.string("replace");
        body.array(8, |properties| {
            properties.property("Description", "s", |value| {
                value.string(&format!("container {}", self.unit));
            });
            properties.property("Slice", "s", |value| value.string(&self.slice));
            // One that has failed, as after a kill for lack of memory, is kept by its name otherwise, and none
            // of that name can be started.
            properties.property("CollectMode", "s", |value| {
                value.string("inactive-or-failed");
            });
            properties.property("PIDs", "au", |value| value.array(4, |pids| pids.u32(pid)));
            let switches = [
                ("Delegate", true),
                ("DefaultDependencies", false),
                ("CPUAccounting", true),
                ("MemoryAccounting", true),
                ("TasksAccounting", true),
                ("IOAccounting", true),
            ];
            for (name, on) in switches {
                properties.property(name, "b", |value| value.u32(on.into()));
            }
        });
        body.array(8, |_| {});
        const METHOD: [&str; 4] = [
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "StartTransientUnit",
        ];
        let mut early = Vec::new();
        let answer = connection.call(METHOD, "ssa(sv)a(sa(sv))", &body, |signal| {
            early.push(signal);
        })?;
        let job = Reader::new(&answer).string().unwrap_or_default();
        let mut early = early.into_iter();
        loop {
            let signal = match early.next() {
                Some(signal) => signal,
                None => connection.next_signal()?,
            };
            if let Some(result) = result_of(&signal, &job) {
                return match result.as_str() {
                    "done" => Ok(()),
                    result => Err(io::Error::other(format!("the job ended as {result}"))),
                };
            }
        }
    }
}

/// The result of the job, if the signal says that it has ended.
fn result_of(signal: &Message, job: &str) -> Option<String> {
    if signal.member != "JobRemoved" {
        return None;
    }
    let mut reader = Reader::new(&signal.body);
    reader.u32()?;
    let ended = reader.string()?;
    let _unit = reader.string()?;
    let result = reader.string()?;
    (ended == job).then_some(result)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        os::unix::net::UnixListener,
        time::Instant,
    };

    use super::*;

    /// A manager that reads one request and sends `answers`; what it read is returned.
    fn answered(answers: Vec<Vec<u8>>) -> (io::Result<()>, Vec<u8>) {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("private");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let manager = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line).expect("AUTH");
            assert!(line.starts_with(b"\0AUTH EXTERNAL "), "{line:?}");
            reader.get_mut().write_all(b"OK 1234\r\n").expect("OK");
            line.clear();
            reader.read_until(b'\n', &mut line).expect("BEGIN");
            assert_eq!(line, b"BEGIN\r\n");
            let mut head = [0; 16];
            reader.read_exact(&mut head).expect("a header");
            let number = |at: usize| {
                let bytes = head[at..at + 4].try_into().expect("four bytes");
                u32::from_le_bytes(bytes) as usize
            };
            let mut rest = vec![0; number(12).next_multiple_of(8) + number(4)];
            reader.read_exact(&mut rest).expect("a body");
            for answer in answers {
                reader.get_mut().write_all(&answer).expect("an answer");
            }
            rest
        });
        let scope = Scope::named(Path::new("a.slice/web.scope")).expect("a scope");
        let result = scope.start_at(&socket, 42, TIMEOUT);
        (result, manager.join().expect("the manager"))
    }

    fn job_removed(job: &str, result: &str) -> Vec<u8> {
        let mut body = Body::default();
        body.u32(7);
        body.string(job);
        body.string("web.scope");
        body.string(result);
        Message::to_bytes(4, &[(3, "s", "JobRemoved"), (1, "o", "/m")], None, &body)
    }

    fn started(job: &str) -> Vec<u8> {
        let mut body = Body::default();
        body.string(job);
        Message::to_bytes(2, &[], Some(1), &body)
    }

    #[test]
    fn a_scope_is_started_once_its_job_is_done() {
        let other = job_removed("/job/1", "failed");
        for answers in [
            vec![other, started("/job/2"), job_removed("/job/2", "done")],
            // systemd may be done before it answers.
            vec![job_removed("/job/2", "done"), started("/job/2")],
        ] {
            let (result, request) = answered(answers);
            result.expect("a scope");
            let text = String::from_utf8_lossy(&request).into_owned();
            for part in [
                "StartTransientUnit",
                "web.scope",
                "a.slice",
                "Delegate",
                "CollectMode",
                "inactive-or-failed",
                "PIDs",
            ] {
                assert!(text.contains(part), "{part} is missing: {text}");
            }
            assert!(
                request
                    .windows(4)
                    .any(|bytes| bytes == 42_u32.to_le_bytes())
            );
        }
    }

    #[test]
    fn what_systemd_refuses_is_said_in_its_words() {
        let (result, _) = answered(vec![started("/job/2"), job_removed("/job/2", "failed")]);
        assert_eq!(
            result.expect_err("a failure").to_string(),
            "the job ended as failed"
        );
        let mut body = Body::default();
        body.string("Unit web.scope was already loaded.");
        let fields = [(4, "s", "org.freedesktop.systemd1.UnitExists")];
        let (result, _) = answered(vec![Message::to_bytes(3, &fields, Some(1), &body)]);
        let expected = "org.freedesktop.systemd1.UnitExists: Unit web.scope was already loaded.";
        assert_eq!(result.expect_err("an error").to_string(), expected);
        let (result, _) = answered(vec![]);
        assert_eq!(
            result.expect_err("no answer").kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    /// Starts a scope by a manager that is too slow, and with a limit that is reached by all of it only.
    fn times_out(socket: &Path) {
        const LIMIT: Duration = Duration::from_millis(300);
        let scope = Scope::named(Path::new("a.slice/web.scope")).expect("a scope");
        let begin = Instant::now();
        let error = scope
            .start_at(socket, 42, LIMIT)
            .expect_err("a slow manager");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!((LIMIT..TIMEOUT).contains(&begin.elapsed()));
    }

    #[test]
    fn a_manager_that_accepts_nobody_is_waited_for_a_limited_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("private");
        let listener = UnixListener::bind(&socket).expect("a socket");
        times_out(&socket);
        // With that client its queue is full: then connecting blocks.
        rustix::net::listen(&listener, 0).expect("a short queue");
        times_out(&socket);
    }

    #[test]
    fn a_manager_that_says_little_at_a_time_is_waited_for_a_limited_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("private");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let manager = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            // Messages that are no answer, without an end.
            let empty = b"l\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0";
            for byte in b"OK 1234\r\n".iter().chain(empty.iter().cycle()) {
                // Until the client has gone.
                if client.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        times_out(&socket);
        manager.join().expect("the manager");
    }
}

//! Output for systemd's own journal.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Child, Command},
    time::Duration,
};

use reaper_exec::io::{Journal, Priority, StreamTarget};

use crate::{
    journal::binder,
    support::{Ask, Scratch, forking},
};

/// How long the journal may take to start; only a failing test takes it.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder `/run` of its own, below which it keeps all, and a machine's id in case that the
/// machine has none. It reads neither the kernel's log nor its audit messages.
const START: &str = "set -e
mount -t tmpfs -o size=64m tmpfs /run
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nRuntimeMaxUse=32M\\nReadKMsg=no\\nAudit=\\n' \
    >/run/systemd/journald.conf.d/reaper.conf
echo 0123456789abcdef0123456789abcdef >/run/machine-id
touch /etc/machine-id
mount --bind /run/machine-id /etc/machine-id
exec /lib/systemd/systemd-journald";

/// A journal of a test's own.
struct Journald(Child);

impl Journald {
    fn start(folder: &Scratch) -> Self {
        let ready = folder.join("ready");
        let notified = UnixDatagram::bind(&ready).expect("a socket");
        notified.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", START]);
        command.env("NOTIFY_SOCKET", &ready);
        let journal = Self(forking(|| command.spawn()).expect("unshare"));
        let mut message = [0; 4096];
        loop {
            let length = notified.recv(&mut message).expect(
                "systemd-journald said nothing; tests/provision installs it with the package systemd",
            );
            let text = String::from_utf8_lossy(&message[..length]);
            if text.lines().any(|line| line == "READY=1") {
                return journal;
            }
        }
    }

    fn path(&self, below: &str) -> String {
        format!("/proc/{}/root{below}", self.0.id())
    }

    /// Priority and text of all entries with an identifier, oldest first.
    fn entries(&self, identifier: &str) -> Vec<(String, String)> {
        let target = self.0.id().to_string();
        self.journalctl(&[
            "nsenter",
            "--target",
            &target,
            "--mount",
            "journalctl",
            "--sync",
        ]);
        let below = self.path("/run/log/journal");
        let fields = self.journalctl(&[
            "journalctl",
            "--directory",
            &below,
            "--identifier",
            identifier,
            "--output",
            "json",
            "--output-fields",
            "PRIORITY,MESSAGE",
        ]);
        let entry = |line: &str| {
            let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let field = |name: &str| entry[name].as_str().expect(name).to_owned();
            (field("PRIORITY"), field("MESSAGE"))
        };
        fields.lines().map(entry).collect()
    }

    fn journalctl(&self, line: &[&str]) -> String {
        let mut command = Command::new(line[0]);
        let output = forking(|| command.args(&line[1..]).output()).expect(line[0]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_real_journal_has_each_line_with_its_priority() {
    let folder = Scratch::new();
    let journald = Journald::start(&folder);
    let socket = journald.path("/run/systemd/journal/stdout");
    let journal = Journal::new().socket(&socket);
    let ask = Ask::streams(
        StreamTarget::Null,
        journal.clone().target(),
        journal.target(),
    );
    let mut monitor = ask.try_bind(&binder()).expect("bind");
    monitor.spawn("echo out; echo '<4>careful'; printf 'no end' >&2");
    assert_eq!(monitor.run_to_exit(), 0);
    monitor.finish();

    let plain = journal.identifier("plain name").level_prefix(false);
    let target = plain.priority(Priority::Notice).target();
    let ask = Ask::streams(StreamTarget::Null, target.clone(), target);
    let mut monitor = ask.try_bind(&binder()).expect("bind");
    monitor.spawn("echo '<4>one'; echo two >&2; echo three");
    assert_eq!(monitor.run_to_exit(), 0);
    monitor.finish();

    let entry = |(priority, text): &(&str, &str)| (priority.to_string(), text.to_string());
    let mut entries = journald.entries("web-1");
    // The two outputs are two streams.
    entries.sort();
    let wanted = [("3", "no end"), ("4", "careful"), ("6", "out")];
    assert_eq!(entries, wanted.each_ref().map(entry));
    let wanted = [("5", "<4>one"), ("5", "two"), ("5", "three")];
    assert_eq!(journald.entries("plain name"), wanted.each_ref().map(entry));
    assert!(fs::exists(socket).expect("look"), "the journal lives");
}

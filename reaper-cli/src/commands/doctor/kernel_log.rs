//! What the kernel says in its log meanwhile.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

use rustix::fs::OFlags;

/// The longest record that the kernel gives.
const RECORD: usize = 8192;
/// The least urgent level (syslog(2)) that a reason has: that of the audit. What is less, tells how
/// things are.
const NOTICE: u32 = 5;
/// More lines than these say no more.
const LINES: usize = 4;
/// How a line begins, or what it contains, that says why a container was refused something.
const WORDS: [&str; 9] = [
    "overlay", "apparmor", "audit", "selinux", "avc:", "lsm", "landlock", "seccomp", "cgroup",
];

/// The kernel's log from one moment on.
#[derive(Debug)]
pub(super) struct KernelLog(io::Result<File>);

impl KernelLog {
    /// From now on. Where this user may not read the log, [`said`](Self::said) says so.
    pub(super) fn from_now() -> Self {
        let opened = File::options()
            .read(true)
            .custom_flags((OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32)
            .open("/dev/kmsg");
        Self(opened.and_then(|mut log| {
            log.seek(SeekFrom::End(0))?;
            Ok(log)
        }))
    }

    /// What it has said since then that can be a reason.
    pub(super) fn said(&mut self) -> Result<Vec<String>, &io::Error> {
        match &mut self.0 {
            Ok(log) => Ok(reasons(|buffer| log.read(buffer))),
            Err(error) => Err(error),
        }
    }
}

/// Each call of `read` gives one record, until there is none.
fn reasons(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> Vec<String> {
    let mut buffer = vec![0; RECORD];
    let mut found: Vec<String> = Vec::new();
    loop {
        match read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let (level, message) = parse(&text);
                if level <= NOTICE
                    && is_reason(message)
                    && !found.iter().any(|other| other == message)
                {
                    found.push(message.to_owned());
                }
            }
            // EPIPE: records were overwritten before they were read. The next one is there.
            Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // The last one is next to the failure.
    found.split_off(found.len().saturating_sub(LINES))
}

/// The level and the text of `PRIORITY,NUMBER,TIME,FLAGS;TEXT\n KEY=VALUE\n…`.
fn parse(record: &str) -> (u32, &str) {
    let line = record.lines().next().unwrap_or_default();
    let (head, text) = line.split_once(';').unwrap_or(("", line));
    let priority = head
        .split(',')
        .next()
        .and_then(|number| number.parse().ok());
    // The lowest three bits; the others are the facility.
    (priority.unwrap_or(0) & 7, text)
}

fn is_reason(message: &str) -> bool {
    let message = message.to_lowercase();
    // An overlay that works without a feature is none.
    WORDS.iter().any(|word| message.contains(word)) && !message.contains("falling back")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relevant_kernel_log_records_are_collected_without_duplicates() {
        let records = [
            "3,10,99,-;overlayfs: failed to clone upperpath\n SUBSYSTEM=x\n",
            "4,11,99,-;eth0: link is up\n",
            "6,11,99,-;overlayfs: \"xino\" feature enabled\n",
            "4,11,99,-;overlayfs: null uuid detected in lower fs '/', falling back to xino=off.\n",
            "3,12,99,-;overlayfs: failed to clone upperpath\n",
            "5,13,99,-;audit: type=1400 apparmor=\"DENIED\"\n",
        ];
        let mut next = records.iter();
        let said = reasons(|buffer| match next.next() {
            Some(record) => {
                buffer[..record.len()].copy_from_slice(record.as_bytes());
                Ok(record.len())
            }
            None => Err(io::ErrorKind::WouldBlock.into()),
        });
        let expected = [
            "overlayfs: failed to clone upperpath",
            "audit: type=1400 apparmor=\"DENIED\"",
        ];
        assert_eq!(said, expected);
    }
}

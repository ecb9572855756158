//! Sockets that a service manager has opened for a call.

use std::env;

use reaper_spec::ProcessSpec;

/// The sockets that a service manager has opened for this call (sd_listen_fds(3)), as far as they
/// are handed on by `--preserve-fds`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sockets(Vec<String>);

impl Sockets {
    /// Those of this call, which is to hand on `preserved` descriptors.
    pub(crate) fn of_caller(preserved: u32) -> Self {
        let number = |name| env::var(name).ok()?.parse::<u32>().ok();
        let count = number("LISTEN_FDS").map_or(0, |count| count.min(preserved));
        if count == 0 || number("LISTEN_PID") != Some(std::process::id()) {
            return Self::default();
        }
        let mut entries = vec![format!("LISTEN_FDS={count}")];
        if let Ok(names) = env::var("LISTEN_FDNAMES") {
            let names: Vec<_> = names.split(':').take(count as usize).collect();
            entries.push(format!("LISTEN_FDNAMES={}", names.join(":")));
        }
        Self(entries)
    }

    /// Tells `process` of them. Its `LISTEN_PID` is set when it has a pid.
    pub(crate) fn add_to(&self, process: &mut ProcessSpec) {
        if self.0.is_empty() {
            return;
        }
        process.env.retain(|entry| !is_of_sockets(entry));
        process.env.extend(self.0.iter().cloned());
    }
}

/// Whether a variable tells of sockets that were handed over.
pub(crate) fn is_of_sockets(entry: &str) -> bool {
    ["LISTEN_FDS=", "LISTEN_PID=", "LISTEN_FDNAMES="]
        .iter()
        .any(|name| entry.starts_with(name))
}

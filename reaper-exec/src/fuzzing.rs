//! What the workspace's fuzz targets call: how this crate reads what others have written. Each
//! function panics where a promise is broken.

use std::{fmt::Debug, path::Path};

use reaper_spec::ContainerSpec;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cgroup,
    channel::Message,
    io::{self, StreamTarget},
    monitor, procfs,
    protocol::{CleanupRecord, ExitRecord, ResponseMessage},
    records, seccomp,
};

/// What is written of a value is read as the same value.
fn is_kept<T: Serialize + DeserializeOwned + Debug>(value: &T) {
    let once = serde_json::to_vec(value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&once).unwrap_or_else(|error| {
        panic!(
            "{value:?} was written as {}: {error}",
            String::from_utf8_lossy(&once)
        )
    });
    let twice = serde_json::to_vec(&again).expect("what was read can be written");
    assert_eq!(once, twice, "{value:?} and {again:?}");
}

/// A message to a monitor, and one from it.
pub fn message(json: &[u8]) {
    let message = Message {
        json: json.to_vec(),
        descriptors: Vec::new(),
    };
    match monitor::parse_request(&message) {
        Ok(request) => is_kept(&request),
        Err(refusal) => is_kept(&*refusal),
    }
    if let Ok(response) = message.parse::<ResponseMessage>() {
        is_kept(&response);
    }
}

/// The records that a monitor leaves in a container's folder. Whether it is one.
pub fn record(json: &[u8]) -> bool {
    let exit = records::parse::<ExitRecord>(json).ok().flatten();
    exit.iter().for_each(is_kept);
    let plan = records::parse::<CleanupRecord>(json).ok().flatten();
    plan.iter().for_each(is_kept);
    exit.is_some() || plan.is_some()
}

/// The target of a stream.
pub fn stream_target(uri: &str) {
    io::check_target(&StreamTarget::Uri(uri.to_owned()));
}

/// The filter of a bundle's system calls. What is made is a program that the kernel takes: of at most
/// 4096 instructions, every jump goes forward to one of them, and the last one answers.
pub fn seccomp_filter(json: &[u8]) {
    let Ok(container) = ContainerSpec::parse(json, Path::new("/bundle")) else {
        return;
    };
    let Some(Ok(filter)) = container.seccomp.as_ref().map(seccomp::compile) else {
        return;
    };
    let length = filter.program.len();
    assert!((1..=4096).contains(&length), "{length} instructions");
    for (at, instruction) in filter.program.iter().enumerate() {
        let code = u32::from(instruction.code);
        let furthest = match code & 0x07 {
            libc::BPF_RET => continue,
            libc::BPF_JMP if code & 0xf0 == libc::BPF_JA => instruction.k as usize,
            libc::BPF_JMP => usize::from(instruction.jt.max(instruction.jf)),
            _ => 0,
        };
        assert!(
            at + 1 + furthest < length,
            "instruction {at} leads out of {length}"
        );
    }
}

/// `/proc/PID/stat`, where a process puts a name of its own choice.
pub fn stat(line: &[u8]) {
    procfs::is_stat(line);
}

/// `/proc/PID/cgroup`.
pub fn own_cgroups(text: &str) {
    cgroup::v1_hierarchies(text);
}

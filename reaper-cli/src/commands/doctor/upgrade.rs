//! What an upgrade changes for the containers that run.
//!
//! Containers keep what the version that started them gave them. What that was is seen in the
//! process itself and compared with its bundle, so that no version has to be known.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use reaper_exec::procfs;
use reaper_overlay::mountinfo::{self, MountInfo};
use reaper_spec::{Bundle, Capabilities, ContainerSpec, NamespaceKind};
use reaper_state::Record;

use super::super::finding::CheckResult;
use crate::{
    commands::{capabilities::bits, context::CommandContext, roots::roots},
    container::pod_names,
    error::Result,
};

const ABOUT: &str = "upgrade";
const NAME_FILES: [&str; 3] = ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"];

/// A finding for each container that is another one when it is created anew, or one that there is none.
pub(super) fn examine(call: &CommandContext) -> Result<Vec<CheckResult>> {
    let mut findings = Vec::new();
    let mut same = 0;
    for (prefix, root) in roots(call)? {
        let store = reaper_state::open(call.config.store, &root)?;
        for id in store.list()? {
            let record = match store.get(&id) {
                Ok(stored) => stored.record,
                // It was deleted meanwhile.
                Err(reaper_state::Error::NotFound { .. }) => continue,
                Err(error) => {
                    findings.push(unknown(&format!("{prefix}{id}"), &error));
                    continue;
                }
            };
            let Some(process) = record.process.as_ref().filter(|it| procfs::is_alive(it)) else {
                continue;
            };
            let changes = changes(&record.bundle, process.pid);
            // What was read of a process that ended meanwhile says nothing.
            if !procfs::is_alive(process) {
                continue;
            }
            let name = name(&prefix, &record);
            match changes {
                Ok(changes) if changes.is_empty() => same += 1,
                Ok(changes) => findings.push(changed(&name, &changes)),
                Err(error) => findings.push(unknown(&name, &*error)),
            }
        }
    }
    if findings.is_empty() {
        findings.push(CheckResult::good(
            ABOUT,
            match same {
                0 => "no container runs".to_owned(),
                same => format!("{same} running, and what each may do is what its spec says"),
            },
        ));
    }
    Ok(findings)
}

fn name(prefix: &str, record: &Record) -> String {
    let id = &record.id;
    match pod_names(record) {
        Some(names) => match names.container {
            Some(container) => format!("{}/{container} ({prefix}{id})", names.pod),
            None => format!("{} ({prefix}{id})", names.pod),
        },
        None => format!("{prefix}{id}"),
    }
}

fn changed(name: &str, changes: &[&str]) -> CheckResult {
    CheckResult::warning(
        ABOUT,
        format!(
            "{name} runs without what its spec says of: {}",
            changes.join(", ")
        ),
        "an earlier version started it, or the configuration restores what that did (`reaper-runtime config show`). \
         docs/upgrading.md says what changes when it is created anew, and which line of its manifest or which \
         setting restores what it has now",
    )
}

fn unknown(name: &str, error: &dyn std::error::Error) -> CheckResult {
    CheckResult::warning(
        ABOUT,
        format!("{name}: cannot tell what changes for it: {error}"),
        "see why, and call it again",
    )
}

/// What of its bundle does not hold of a running container, in the words of docs/upgrading.md.
fn changes(
    bundle: &Path,
    pid: u32,
) -> std::result::Result<Vec<&'static str>, Box<dyn std::error::Error>> {
    // A command that was given on the command line has no bundle, and no restrictions.
    if !bundle.join("config.json").try_exists()? {
        return Ok(Vec::new());
    }
    let spec = Bundle::load(bundle)?.into_container_spec();
    let process = Process::read(pid)?;
    let mut changes: Vec<_> = TOPICS
        .iter()
        .filter(|(_, differs)| differs(&spec, &process))
        .map(|(topic, _)| *topic)
        .collect();
    if !changes.is_empty() {
        // These came later than all that is seen in a process, and are not seen there.
        let later = [
            ("devices", !spec.resources.devices.is_empty()),
            ("hooks", !spec.hooks.is_empty()),
        ];
        changes.extend(
            later
                .iter()
                .filter(|(_, asked)| *asked)
                .map(|(topic, _)| *topic),
        );
    }
    Ok(changes)
}

/// What is looked at of a process.
struct Process {
    /// The bounding set.
    bounding: u64,
    is_filtered: bool,
    apparmor: Option<String>,
    mounts: Vec<MountInfo>,
    root: PathBuf,
    is_in_the_nodes_network: bool,
}

impl Process {
    fn read(pid: u32) -> io::Result<Self> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(dir.join("status"))?;
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.map(str::trim)
        };
        let network = |dir: &Path| fs::metadata(dir.join("ns/net")).map(|it| (it.dev(), it.ino()));
        Ok(Self {
            bounding: field("CapBnd:")
                .and_then(|set| u64::from_str_radix(set, 16).ok())
                .unwrap_or(0),
            is_filtered: field("Seccomp:").is_some_and(|mode| mode != "0"),
            apparmor: fs::read_to_string(dir.join("attr/apparmor/current")).ok(),
            mounts: mountinfo::parse(&fs::read(dir.join("mountinfo"))?),
            is_in_the_nodes_network: network(&dir)? == network(Path::new("/proc/self"))?,
            root: dir.join("root"),
        })
    }

    /// The mount that is seen at `path`: the last one there.
    fn mount_at(&self, path: &Path) -> Option<&MountInfo> {
        self.mounts
            .iter()
            .rev()
            .find(|mount| mount.mount_point == path)
    }

    fn is_covered(&self, path: &Path) -> bool {
        self.mount_at(path).is_some() || !self.has(path)
    }

    fn has(&self, path: &Path) -> bool {
        let below = path.strip_prefix("/").unwrap_or(path);
        fs::symlink_metadata(self.root.join(below)).is_ok_and(|found| !found.is_symlink())
    }
}

type Differs = fn(&ContainerSpec, &Process) -> bool;

/// What is seen, in the order of docs/upgrading.md.
const TOPICS: [(&str, Differs); 6] = [
    ("capabilities", |spec, process| {
        let granted = |sets: &Capabilities| bits(&sets.bounding);
        let sets = spec.process.capabilities.as_ref();
        sets.is_some_and(|sets| process.bounding & !granted(sets) != 0)
    }),
    ("seccomp", |spec, process| {
        spec.seccomp.is_some() && !process.is_filtered
    }),
    ("AppArmor", |spec, process| {
        let asked = spec.process.labels.apparmor_profile.as_deref();
        let is_confined = |profile: &str| !profile.is_empty() && !profile.starts_with("unconfined");
        asked.is_some_and(is_confined)
            && process
                .apparmor
                .as_deref()
                .is_some_and(|current| !is_confined(current))
    }),
    ("read-only and masked files", |spec, process| {
        let restrictions = &spec.restrictions;
        let root = process.mount_at(Path::new("/"));
        let is_writable =
            root.is_some_and(|root| !root.options.iter().any(|option| option == "ro"));
        (restrictions.read_only && is_writable)
            || restrictions
                .masked_paths
                .iter()
                .chain(&restrictions.read_only_paths)
                .any(|path| !process.is_covered(path))
    }),
    ("DNS", |spec, process| {
        let mounted = spec.mounts.iter().map(|mount| mount.destination.as_path());
        mounted
            .filter(|path| NAME_FILES.iter().any(|name| *path == Path::new(name)))
            .any(|path| process.mount_at(path).is_none())
    }),
    ("network", |spec, process| {
        spec.namespace(NamespaceKind::Network).is_some() && process.is_in_the_nodes_network
    }),
];

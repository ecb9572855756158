//! Public structs and enums may grow without a change for their users (`#[non_exhaustive]`), but for
//! those that are named here.

use std::{collections::BTreeSet, fs};

use crate::{CRATES, root};

/// What these have is all that there is: a size, a name, a direction.
const COMPLETE: &[&str] = &[
    "ApplyMode",
    "ChildStdio",
    "ConsoleSize",
    "DeviceType",
    "HostFilesystem",
    "IdRange",
    "OutputStream",
    "ParseRevisionError",
    "Priority",
    "ProcessIdentity",
    "Program",
    "RootPropagation",
    "Target",
    "Writes",
];

/// Users write them whole as yet: each is to get a constructor. There must be no more.
const TO_BE_CHANGED: &[&str] = &[
    "Capabilities",
    "Client",
    "Config",
    "ContainerSpec",
    "ContainerType",
    "Device",
    "DeviceRule",
    "FileRestrictions",
    "Hook",
    "HookKind",
    "Hooks",
    "HugepageLimit",
    "InterfacePriority",
    "Invalid",
    "IoClass",
    "IoPriority",
    "Keep",
    "LoggerLimits",
    "MaskConfig",
    "Mount",
    "NamespaceKind",
    "NamespacePath",
    "OverlayConfig",
    "ProcessSpec",
    "Resource",
    "Resources",
    "RetentionConfig",
    "Rlimit",
    "RlimitCeiling",
    "RootfsMount",
    "SchedulerFlag",
    "SchedulerPolicy",
    "Seccomp",
    "SeccompAction",
    "SeccompArch",
    "SeccompArg",
    "SeccompFlag",
    "SeccompOp",
    "SeccompRule",
    "Settings",
    "StreamTarget",
    "ThrottleDevice",
    "Usage",
    "User",
    "WeightDevice",
];

#[test]
fn public_types_may_grow() {
    let mut found = BTreeSet::new();
    for name in CRATES {
        let listed = fs::read_to_string(root().join(name).join("api.txt")).expect("a listing");
        for line in listed.lines() {
            let Some((path, text)) = line.split_once(": ") else {
                continue;
            };
            let is_open = text.contains("pub struct ") && !text.ends_with(" { .. }");
            let is_type = is_open || text.contains("pub enum ");
            if is_type && !text.contains("#[non_exhaustive]") && !line.contains(" { .. } [feature")
            {
                found.extend(path.rsplit("::").next().map(str::to_owned));
            }
        }
    }
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    let mut expected = [COMPLETE, TO_BE_CHANGED].concat();
    expected.sort_unstable();
    assert_eq!(
        found, expected,
        "a public type is to be #[non_exhaustive], with a constructor, or in one of the lists"
    );
}

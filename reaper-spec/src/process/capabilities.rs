//! The capabilities of a process.

use serde::{Deserialize, Serialize};

use crate::{error::Invalid, json::Node};

/// The five sets of capabilities(7) that a process is to have (runtime-spec, config.md, "Linux
/// Process"), by names such as `CAP_CHOWN`.
///
/// The names are as written: one that the kernel does not know, or that cannot be granted, is no
/// error but a warning, as the runtime-spec demands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// What the process and all that it executes can have at most.
    pub bounding: Vec<String>,
    /// What the kernel checks.
    pub effective: Vec<String>,
    /// What programs with file capabilities may take over.
    pub inheritable: Vec<String>,
    /// What the process may put into its effective set.
    pub permitted: Vec<String>,
    /// What programs executed by a user other than root keep.
    pub ambient: Vec<String>,
}

impl Capabilities {
    /// The names of all capabilities of Linux (capabilities(7)), in the order of their numbers.
    pub const NAMES: [&str; 41] = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_LINUX_IMMUTABLE",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_BROADCAST",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_IPC_LOCK",
        "CAP_IPC_OWNER",
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_SYS_CHROOT",
        "CAP_SYS_PTRACE",
        "CAP_SYS_PACCT",
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_NICE",
        "CAP_SYS_RESOURCE",
        "CAP_SYS_TIME",
        "CAP_SYS_TTY_CONFIG",
        "CAP_MKNOD",
        "CAP_LEASE",
        "CAP_AUDIT_WRITE",
        "CAP_AUDIT_CONTROL",
        "CAP_SETFCAP",
        "CAP_MAC_OVERRIDE",
        "CAP_MAC_ADMIN",
        "CAP_SYSLOG",
        "CAP_WAKE_ALARM",
        "CAP_BLOCK_SUSPEND",
        "CAP_AUDIT_READ",
        "CAP_PERFMON",
        "CAP_BPF",
        "CAP_CHECKPOINT_RESTORE",
    ];

    /// The names in all sets; some more than once.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        let sets = [
            &self.bounding,
            &self.effective,
            &self.inheritable,
            &self.permitted,
            &self.ambient,
        ];
        sets.into_iter().flatten()
    }
}

pub(super) fn read(node: &Node<'_>) -> Result<Capabilities, Invalid> {
    node.object("an object with sets of capabilities")?;
    let set = |key| {
        node.get(key)?
            .items("an array of capabilities", |item| item.owned())
    };
    Ok(Capabilities {
        bounding: set("bounding")?,
        effective: set("effective")?,
        inheritable: set("inheritable")?,
        permitted: set("permitted")?,
        ambient: set("ambient")?,
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Capability;

    use super::Capabilities;

    #[test]
    fn names_are_those_of_the_runtime_spec_in_the_kernels_order() {
        for name in Capabilities::NAMES {
            let known = name.strip_prefix("CAP_").unwrap().parse::<Capability>();
            assert!(known.is_ok(), "{name}");
        }
        // linux/capability.h
        for (name, number) in [
            ("CAP_CHOWN", 0),
            ("CAP_SYS_ADMIN", 21),
            ("CAP_AUDIT_READ", 37),
        ] {
            assert_eq!(Capabilities::NAMES[number], name);
        }
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        let last: usize = last.trim().parse().unwrap();
        assert!(last < Capabilities::NAMES.len(), "this kernel has {last}");
    }
}

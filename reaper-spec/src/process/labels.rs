//! What a security module of the kernel confines a process by.

use serde::{Deserialize, Serialize};

use crate::{error::Invalid, json::Node};

/// The profile and the label of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SecurityLabels {
    /// The AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// The SELinux label.
    pub selinux_label: Option<String>,
    /// The SELinux label of the filesystems that are made for its container, and of its terminal
    /// (`linux.mountLabel`; runtime-spec, config-linux.md, "Mount Label"). A document of a process alone has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_label: Option<String>,
}

pub(super) fn read(process: &Node<'_>) -> Result<SecurityLabels, Invalid> {
    Ok(SecurityLabels {
        apparmor_profile: process.get("apparmorProfile")?.text()?,
        selinux_label: process.get("selinuxLabel")?.text()?,
        mount_label: None,
    })
}

//! What a security module of the kernel confines a process by.

use serde::{Deserialize, Serialize};

use crate::{error::Invalid, json::Node};

/// The profile and the label of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityLabels {
    /// The AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// The SELinux label.
    pub selinux_label: Option<String>,
}

pub(super) fn read(process: &Node<'_>) -> Result<SecurityLabels, Invalid> {
    let text = |key| -> Result<Option<String>, Invalid> {
        let text = process.get(key)?.opt(Node::owned)?;
        Ok(text.filter(|text| !text.is_empty()))
    };
    Ok(SecurityLabels {
        apparmor_profile: text("apparmorProfile")?,
        selinux_label: text("selinuxLabel")?,
    })
}

//! The network of pods: a CNI plugin that connects each to the node by a pair of devices.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// The node's address, which `tests/lib/kubernetes-node` gives to its loopback device. The kubelet
/// takes none of 127.0.0.0/8.
pub const NODE: &str = "10.88.0.1";

/// Puts the plugin, and the configuration that names it, into the folder for both.
pub(super) fn install(folder: &Path) {
    fs::create_dir_all(folder).expect("make the folder of CNI");
    // The second is what containerd asks for in addition.
    for name in ["pair", "loopback"] {
        let plugin = folder.join(name);
        fs::write(&plugin, include_str!("plugin.sh")).expect("write a plugin");
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))
            .expect("make it executable");
    }
    let list = r#"{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"pair"}]}"#;
    fs::write(folder.join("10-pods.conflist"), list).expect("write the configuration of CNI");
}

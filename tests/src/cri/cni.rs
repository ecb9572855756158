//! The networks of pods: one that is empty, and those that Debian's plugins make.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use serde_json::{Value, json};

/// The address that the plugin which makes nothing says each pod has.
const ADDRESS: &str = "10.99.0.2";

/// Where Debian has its plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// How pods are connected to their node and to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugins {
    /// By a bridge of the node, `pods`.
    Bridge,
    /// Each by a pair of devices, so that the node routes between them.
    Pairs,
}

impl Plugins {
    /// The address of the node that pods know.
    pub const GATEWAY: &str = "10.89.7.1";

    fn connecting(self, folder: &Path) -> Value {
        let addresses = json!({
            "type": "host-local",
            "ranges": [[{ "subnet": "10.89.7.0/24" }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
            "dataDir": folder.join("addresses"),
        });
        match self {
            Self::Bridge => {
                json!({ "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true, "ipam": addresses })
            }
            Self::Pairs => json!({ "type": "ptp", "ipam": addresses }),
        }
    }
}

/// Puts a plugin that makes nothing into the folder, and the configuration that names it: containerd makes the
/// network's namespace itself.
pub(super) fn install(folder: &Path) {
    fs::create_dir_all(folder).expect("make the folder of CNI");
    let result = format!(
        r#"{{"cniVersion":"0.4.0","interfaces":[{{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}}],"ips":[{{"version":"4","interface":0,"address":"{ADDRESS}/24"}}]}}"#
    );
    let versions = r#"{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}"#;
    let script = format!(
        "#!/bin/sh\ncat >/dev/null\ncase $CNI_COMMAND in\nADD) echo '{result}' ;;\nVERSION) echo '{versions}' ;;\nesac\n"
    );
    // The second is what containerd asks for in addition.
    for name in ["nothing", "loopback"] {
        let plugin = folder.join(name);
        fs::write(&plugin, &script).expect("write a plugin");
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))
            .expect("make it executable");
    }
    configure(folder, &[json!({ "type": "nothing" })]);
}

/// Puts Debian's plugins into the folder, and the configuration by which they connect pods.
pub(super) fn connect(folder: &Path, plugins: Plugins) {
    fs::create_dir_all(folder).expect("make the folder of CNI");
    for name in ["bridge", "host-local", "loopback", "portmap", "ptp"] {
        let plugin = Path::new(PLUGINS).join(name);
        assert!(
            plugin.exists(),
            "no {}: run tests/provision",
            plugin.display()
        );
        let link = folder.join(name);
        if !link.exists() {
            symlink(plugin, link).expect("link a plugin");
        }
    }
    let ports = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    configure(folder, &[plugins.connecting(folder), ports]);
}

fn configure(folder: &Path, plugins: &[Value]) {
    let list = json!({ "cniVersion": "0.4.0", "name": "test", "plugins": plugins });
    fs::write(folder.join("10-test.conflist"), list.to_string())
        .expect("write the configuration of CNI");
}

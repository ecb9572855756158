//! A plugin for networks that makes nothing: containerd makes the network's namespace itself.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// The address that the plugin says each pod has.
const ADDRESS: &str = "10.99.0.2";

/// Puts the plugin, and the configuration that names it, into the folder for both.
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
    let list = r#"{"cniVersion":"0.4.0","name":"test","plugins":[{"type":"nothing"}]}"#;
    fs::write(folder.join("10-test.conflist"), list).expect("write the configuration of CNI");
}

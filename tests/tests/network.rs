//! The network of a pod.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _};

use reaper_tests::{Node, cri::container, on_each, runtime::until};

const LOOK: [&str; 3] = [
    "/bin/sh",
    "-c",
    "stat -Lc %i /proc/self/ns/net; ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
];

/// What CNI's plugins were given, each a namespace.
fn networks(node: &Node) -> BTreeSet<u64> {
    let entries = fs::read_dir(node.dir().join("state/io.containerd.grpc.v1.cri/netns"));
    let entries = entries.into_iter().flatten();
    let inode = |entry: std::io::Result<fs::DirEntry>| {
        fs::metadata(entry.expect("an entry").path())
            .expect("a namespace")
            .ino()
    };
    entries.map(inode).collect()
}

#[test]
fn a_pod_is_in_the_network_that_was_made_for_it_also_after_a_restart() {
    on_each(|node| {
        let config = node.pod_config_of_own_network("own");
        let pod = until("the network's configuration is read", || {
            node.run_pod_of(config.clone()).ok()
        });
        let networks = networks(node);
        assert_eq!(networks.len(), 1, "{networks:?}");
        let network = networks.first().expect("a network");
        assert_ne!(
            *network,
            fs::metadata("/proc/self/ns/net").expect("one").ino()
        );
        // containerd's own parameter for every pod from 2.0 on, in the pod's network alone.
        let ports = if node.major() >= 2 { 0 } else { 1024 };
        let expected = format!("{network}\nlo\n{ports}\n");
        let look = |id: &str| {
            let seen = node.cri().exec_sync(id, &LOOK, 0).expect("exec");
            String::from_utf8(seen.stdout).expect("text")
        };
        let before = pod.start(&container("before", &["/bin/sleep", "1093"]));
        assert_eq!(look(&before), expected);
        node.stop_containerd();
        node.start_containerd();
        assert_eq!(look(&before), expected);
        let after = pod.start(&container("after", &["/bin/sleep", "1094"]));
        assert_eq!(look(&after), expected);
        pod.stop();
        pod.remove();
    });
}

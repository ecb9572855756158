//! Limits of `ctr` and of the kubelet's containers.

use reaper_tests::{
    containerd::is_yardstick,
    cri::{container, messages::LinuxContainerResources},
    on_each,
};

/// Eats 200 MB: without a newline tail keeps all of it.
const EATER: &str = "head -c 200000000 /dev/zero | tail > /dev/null; exit $?";

#[test]
fn a_memory_limit_of_ctr_kills_what_eats_more() {
    on_each(|node| {
        let options = ["--rm", "--memory-limit", "52428800"];
        let output = node.ctr_run_with("eater", &options, &["/bin/sh", "-c", EATER]);
        assert_eq!(output.code, 137, "{output:?}");
    });
}

#[test]
fn limits_of_a_pods_container_hold() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let pod = node.run_pod("limited");
        let mut config = container("eater", &["/bin/sh", "-c", EATER]);
        let linux = config.linux.as_mut().expect("of a Linux container");
        linux.resources = Some(LinuxContainerResources {
            memory_limit_in_bytes: 50 << 20,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            cpu_shares: 512,
            ..LinuxContainerResources::default()
        });
        let id = pod.start(&config);
        assert_eq!(node.cri().exited(&id).exit_code, 137);
        pod.stop();
        pod.remove();
    });
}

//! Which of the node's devices `ctr`'s containers and pods may open.

use reaper_tests::{
    containerd::makes_containers,
    cri::{
        container,
        messages::{ContainerConfig, Device},
    },
    on_each,
    runtime::until,
};

/// Says which of these the process can open. The node's own `/dev` is there for any of them, so what
/// is not said is forbidden.
const OPEN: &str = "for device in null tty kmsg fuse loop-control; do \
    case \"$(: 2>&1 < /dev/$device)\" in *'not permitted'*) ;; *) printf '%s ' $device;; esac; \
    done; echo";
const USUAL: &str = "null tty";
const ALL: &str = "null tty kmsg fuse loop-control";

#[test]
fn a_container_of_ctr_opens_what_its_options_allow() {
    on_each(|node| {
        if makes_containers() {
            return;
        }
        let command = ["/bin/sh", "-c", OPEN];
        for (name, options, expected) in [
            ("usual", &[][..], USUAL),
            ("fuse", &["--device", "/dev/fuse"], "null tty fuse"),
            ("privileged", &["--privileged"], ALL),
        ] {
            let options = [&["--rm"], options].concat();
            let output = node.ctr_run_with(name, &options, &command);
            assert_eq!(output.stdout.trim(), expected, "{name}: {output:?}");
        }
    });
}

/// A container that says what it can open, and rests.
fn opener(name: &str, change: impl FnOnce(&mut ContainerConfig)) -> ContainerConfig {
    let script = format!("{OPEN}; exec sleep 1083");
    let mut config = container(name, &["/bin/sh", "-c", &script]);
    change(&mut config);
    config
}

#[test]
fn a_pods_container_opens_what_its_spec_allows_and_so_does_exec() {
    on_each(|node| {
        if makes_containers() {
            return;
        }
        let usual = node.run_pod("devices");
        let mut privileged_pod = node.pod_config("privileged");
        let linux = privileged_pod.linux.as_mut().expect("a pod of Linux");
        let context = linux.security_context.as_mut().expect("a security context");
        context.privileged = true;
        let administers = node.run_pod_of(privileged_pod).expect("a privileged pod");
        let privileged = |config: &mut ContainerConfig| {
            let linux = config.linux.as_mut().expect("a container of Linux");
            let context = linux.security_context.as_mut().expect("a security context");
            context.privileged = true;
        };
        let plugin = |config: &mut ContainerConfig| {
            config.devices.push(Device {
                container_path: "/dev/fuse".to_owned(),
                host_path: "/dev/fuse".to_owned(),
                permissions: "rw".to_owned(),
            });
        };
        for (pod, config, expected) in [
            (&usual, opener("usual", |_| ()), USUAL),
            (&usual, opener("plugin", plugin), "null tty fuse"),
            (&administers, opener("privileged", privileged), ALL),
        ] {
            let name = &config.metadata.as_ref().expect("a name").name;
            let id = pod.start(&config);
            let log = until("it says what it can open", || pod.log(name).pop());
            let init = log.trim_start_matches("stdout F ").trim();
            assert_eq!(init, expected, "{name}");
            let exec = ["/bin/sh", "-c", OPEN];
            let exec = node.cri().exec_sync(&id, &exec, 0).expect("exec");
            let exec = String::from_utf8(exec.stdout).expect("text");
            assert_eq!(exec.trim(), expected, "{name}");
        }
        for pod in [usual, administers] {
            pod.stop();
            pod.remove();
        }
    });
}

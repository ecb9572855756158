//! Which processes the containers of a pod see.

use std::{fs, os::unix::fs::MetadataExt as _};

use reaper_tests::{
    Node, Options,
    containerd::{is_yardstick, makes_containers},
    cri::{
        Pod, container,
        messages::{ContainerConfig, NamespaceMode, PodSandboxConfig},
    },
    faults, on_each_with,
    procfs::Process,
    runtime::until,
};

/// The namespace, and what number 1 in it is called.
const LOOK: [&str; 3] = [
    "/bin/sh",
    "-c",
    "stat -Lc %i /proc/self/ns/pid; cat /proc/1/comm",
];

fn private() -> Options {
    Options::default().overlay().env("REAPER_PID", "private")
}

fn pod_with(node: &Node, name: &str, pids: NamespaceMode) -> Pod {
    let mut config: PodSandboxConfig = node.pod_config(name);
    let linux = config.linux.as_mut().expect("a pod of Linux");
    let context = linux.security_context.as_mut();
    let options = context.and_then(|context| context.namespace_options.as_mut());
    options.expect("namespaces").pid = pids.into();
    node.run_pod_of(config).expect("run a pod")
}

fn container_with(name: &str, pids: NamespaceMode, command: &[&str]) -> ContainerConfig {
    let mut config = container(name, command);
    let linux = config.linux.as_mut().expect("a container of Linux");
    let context = linux.security_context.as_mut();
    let options = context.and_then(|context| context.namespace_options.as_mut());
    options.expect("namespaces").pid = pids.into();
    config
}

fn own() -> u64 {
    let own = fs::metadata("/proc/self/ns/pid");
    own.expect("this process's").ino()
}

/// What an exec sees: the namespace, and the name of number 1.
fn look(node: &Node, id: &str) -> (u64, String) {
    let seen = node.cri().exec_sync(id, &LOOK, 0).expect("exec");
    let seen = String::from_utf8(seen.stdout).expect("text");
    let (namespace, name) = seen.trim().split_once('\n').expect("two lines");
    (namespace.parse().expect("a number"), name.to_owned())
}

#[test]
fn a_pod_has_the_pid_namespaces_that_it_asks_for_also_after_a_restart() {
    // Other runtimes make them whatever the setting is.
    if makes_containers() || is_yardstick() {
        return;
    }
    on_each_with(&private(), |node| {
        let sleep = ["/bin/sleep", "1101"];
        let host = pod_with(node, "host", NamespaceMode::Node);
        let id = host.start(&container_with("host", NamespaceMode::Node, &sleep));
        assert_eq!(look(node, &id).0, own());

        let alone = pod_with(node, "alone", NamespaceMode::Container);
        let one = alone.start(&container_with("one", NamespaceMode::Container, &sleep));
        let two = alone.start(&container_with("two", NamespaceMode::Container, &sleep));
        let (ones, twos) = (look(node, &one), look(node, &two));
        assert!(ones.0 != twos.0 && ones.0 != own(), "{ones:?} {twos:?}");
        assert_eq!([&*ones.1, &*twos.1], ["sleep"; 2]);

        let shared = pod_with(node, "shared", NamespaceMode::Pod);
        let first = shared.start(&container_with("first", NamespaceMode::Pod, &sleep));
        let second = shared.start(&container_with("second", NamespaceMode::Pod, &sleep));
        let seen = look(node, &first);
        assert_eq!(seen.1, "reaper-pause");
        assert_eq!(look(node, &second), seen);
        assert!(![own(), ones.0, twos.0].contains(&seen.0));

        node.stop_containerd();
        node.start_containerd();
        let (alone, shared, host) = (alone.on(node), shared.on(node), host.on(node));
        assert_eq!(look(node, &one), ones);
        assert_eq!(look(node, &first), seen);
        let third = shared.start(&container_with("third", NamespaceMode::Pod, &sleep));
        assert_eq!(look(node, &third), seen);
        // A container that has ended takes neither the others nor the namespace with it.
        node.cri().stop(&second, 0).expect("stop a container");
        assert_eq!(node.cri().exited(&second).exit_code, 137);
        assert_eq!(look(node, &first), seen);
        for pod in [host, alone, shared] {
            pod.stop();
            pod.remove();
        }
    });
}

#[test]
fn signals_codes_and_orphans_of_a_pid_namespace_are_as_with_any_container() {
    if makes_containers() || is_yardstick() {
        return;
    }
    on_each_with(&private(), |node| {
        let pod = pod_with(node, "ends", NamespaceMode::Container);
        let cri = node.cri();
        // A program that does not say what SIGTERM does is killed when the grace period is over.
        let deaf = pod.start(&container_with(
            "deaf",
            NamespaceMode::Container,
            &["/bin/sleep", "1102"],
        ));
        cri.stop(&deaf, 1).expect("stop a container");
        assert_eq!(cri.exited(&deaf).exit_code, 137);
        let script =
            "trap 'exit 7' TERM; echo ready; setsid sleep 1103 & while :; do sleep 0.1; done";
        let heeds = ["/bin/sh", "-c", script];
        let heeds = pod.start(&container_with("heeds", NamespaceMode::Container, &heeds));
        until("it is ready", || {
            (pod.log("heeds").len() == 1).then_some(())
        });
        cri.stop(&heeds, 60).expect("stop a container");
        assert_eq!(cri.exited(&heeds).exit_code, 7);
        let code = ["/bin/sh", "-c", "setsid sleep 1104 & exit 3"];
        let code = pod.start(&container_with("code", NamespaceMode::Container, &code));
        assert_eq!(cri.exited(&code).exit_code, 3);
        let exec = pod.start(&container_with(
            "exec",
            NamespaceMode::Container,
            &["/bin/sleep", "1105"],
        ));
        let failed = cri.exec_sync(&exec, &["/bin/sh", "-c", "exit 5"], 0);
        assert_eq!(failed.expect("exec").exit_code, 5);
        let late = cri.exec_sync(&exec, &["/bin/sh", "-c", "setsid sleep 1106"], 1);
        assert!(late.is_err(), "it has a limit of a second");
        pod.stop();
        pod.remove();
    });
}

#[test]
fn a_pod_whose_pid_namespace_has_ended_is_not_ready() {
    if makes_containers() || is_yardstick() {
        return;
    }
    on_each_with(&private(), |node| {
        let pod = pod_with(node, "shared", NamespaceMode::Pod);
        let sleep = ["/bin/sleep", "1107"];
        let id = pod.start(&container_with("first", NamespaceMode::Pod, &sleep));
        let workload = faults::process_named("/bin/sleep 1107");
        let namespace = look(node, &id).0;
        let holder = until("the holder is found", || {
            reaper_tests::procfs::all().into_iter().find(|one| {
                one.name == "reaper-pause"
                    && fs::metadata(format!("/proc/{}/ns/pid", one.pid))
                        .is_ok_and(|it| it.ino() == namespace)
            })
        });
        faults::kill(&holder);
        assert_eq!(node.cri().exited(&id).exit_code, 137);
        assert!(Process::find(workload.pid).is_none_or(|one| !one.is_alive()));
        // The kubelet makes a pod anew whose sandbox is not ready.
        until("the sandbox is not ready", || {
            (pod.status().state != 0).then_some(())
        });
        pod.stop();
        pod.remove();
    });
}

#[test]
fn ctr_runs_a_command_in_a_pid_namespace() {
    if makes_containers() || is_yardstick() {
        return;
    }
    on_each_with(&private(), |node| {
        let script = "echo $$; cd /proc; echo [0-9]*; exit 4";
        let output = node.ctr_run("one", &["/bin/sh", "-c", script]);
        assert_eq!((output.stdout.as_str(), output.code), ("1\n1\n", 4));
        let shared = node.ctr_run_with(
            "two",
            &["--rm", "--with-ns", "pid:/proc/self/ns/pid"],
            &["/bin/sh", "-c", "echo $$"],
        );
        assert_ne!(shared.stdout, "1\n", "{shared:?}");
    });
}

#[test]
fn what_is_a_pods_goes_with_its_pid_namespace_also_when_the_shim_is_killed() {
    if makes_containers() || is_yardstick() {
        return;
    }
    let options = private().env("REAPER_OVERLAY_SCOPE", "pod");
    on_each_with(&options, |node| {
        let scopes = || {
            let entries = fs::read_dir(node.dir().join("overlay/scopes"));
            entries.expect("list the scopes").count()
        };
        let sleep = ["/bin/sleep", "1108"];
        let pod = pod_with(node, "own", NamespaceMode::Pod);
        pod.start(&container_with("one", NamespaceMode::Pod, &sleep));
        assert_eq!(scopes(), 1);
        pod.stop();
        pod.remove();
        assert_eq!(scopes(), 0);

        let pod = pod_with(node, "killed", NamespaceMode::Pod);
        let id = pod.start(&container_with("one", NamespaceMode::Pod, &sleep));
        faults::kill(&faults::shim_of(
            faults::process_named("/bin/sleep 1108").pid,
        ));
        node.cri().exited(&id);
        pod.stop();
        pod.remove();
        until("the pod's scope is removed", || {
            (scopes() == 0).then_some(())
        });
    });
}

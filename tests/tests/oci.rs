//! Real containers: the same shim with an OCI runtime to drive, under containerd and its CRI.

use std::fs;

use reaper_tests::{
    Node, Options,
    containerd::is_yardstick,
    cri::{
        Pod, container, memory_limit,
        messages::{
            ContainerConfig, ContainerState, NamespaceMode, NamespaceOption, PodSandboxConfig,
        },
    },
    faults::{kill, monitor_of, process_named, shim_of},
    on_each_with,
    pty::Terminal,
    runtime::until,
};

fn on_each(test: impl Fn(&Node)) {
    on_each_with(&Options::default().env("REAPER_RUNTIME_PATH", "runc"), test);
}

/// The namespaces of a pod that is its own world but for the network, which needs a plugin.
fn namespaces() -> Option<NamespaceOption> {
    Some(NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..NamespaceOption::default()
    })
}

fn pod_config(node: &Node, name: &str) -> PodSandboxConfig {
    let mut config = node.pod_config(name);
    let linux = config.linux.as_mut().expect("of a Linux pod");
    let security = linux.security_context.as_mut().expect("a security context");
    security.namespace_options = namespaces();
    config
}

fn with_pod(name: &str, command: &[&str]) -> ContainerConfig {
    let mut config = container(name, command);
    let linux = config.linux.as_mut().expect("of a Linux container");
    let security = linux.security_context.as_mut().expect("a security context");
    security.namespace_options = namespaces();
    config
}

/// What a namespace of a container is called, as it sees it itself.
fn namespace(node: &Node, id: &str, kind: &str) -> String {
    let path = format!("/proc/self/ns/{kind}");
    let listed = node.cri().exec_sync(id, &["/bin/ls", "-l", &path], 0);
    let listed = listed.expect("list a namespace").stdout;
    let text = String::from_utf8(listed).expect("text");
    text.trim()
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn own_namespace(kind: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("read a link");
    link.display().to_string()
}

fn logged(pod: &Pod, name: &str, line: &str) {
    until("its line is logged", || {
        pod.log(name).contains(&line.to_owned()).then_some(())
    });
}

#[test]
fn a_command_runs_in_its_image() {
    on_each(|node| {
        let events = node.events();
        let script = "ls /; echo err >&2; exit 21";
        let output = node.ctr_run("image", &["/bin/sh", "-c", script]);
        assert_eq!(output.code, 21, "{output:?}");
        // What the tests' image has, and no node.
        assert!(output.stdout.contains("pause\n"), "{output:?}");
        assert!(!output.stdout.contains("usr\n"), "{output:?}");
        assert_eq!(output.stderr, "err\n");
        assert_eq!(
            events.topics_of(&node.name("image")),
            [
                "/tasks/create",
                "/tasks/start",
                "/tasks/exit",
                "/tasks/delete"
            ]
        );
    });
}

#[test]
fn missing_program_is_named() {
    on_each(|node| {
        let output = node.ctr_run("missing", &["/nowhere/missing"]);
        assert_ne!(output.code, 0, "{output:?}");
        assert!(output.stderr.contains("/nowhere/missing"), "{output:?}");
    });
}

#[test]
fn run_and_exec_have_terminals() {
    on_each(|node| {
        let shell = ["/bin/sh", "-c", "PS1='rea''dy> ' exec sh -i"];
        let mut terminal =
            Terminal::spawn(&node.ctr_run_command("shell", &["--rm", "--tty"], &shell));
        terminal.expect("ready> ");
        terminal.send("tty\n");
        terminal.expect("/dev/");
        let mut exec = node.ctr_command();
        exec.args(["task", "exec", "--tty", "--exec-id", "shell", "--fifo-dir"])
            .arg(node.dir().join("fifo"))
            .arg(node.name("shell"))
            .args(shell);
        let mut second = Terminal::spawn(&exec);
        second.expect("ready> ");
        second.send("test -t 0 && exit 32\n");
        assert_eq!(second.finish().code, 32);
        terminal.expect("ready> ");
        terminal.send("exit 31\n");
        assert_eq!(terminal.finish().code, 31);
    });
}

#[test]
fn pod_containers_share_ipc_but_not_pid_and_mount_namespaces() {
    on_each(|node| {
        let pod = node
            .run_pod_of(pod_config(node, "real"))
            .unwrap_or_else(|status| panic!("run a pod: {status}"));
        let first = pod.start(&with_pod("first", &["/bin/sleep", "1081"]));
        let script = "echo up; trap 'exit 5' TERM; while :; do sleep 1082 & wait; done";
        let second = pod.start(&with_pod("second", &["/bin/sh", "-c", script]));
        logged(&pod, "second", "stdout F up");

        let ipc = namespace(node, &first, "ipc");
        assert_eq!(ipc, namespace(node, &second, "ipc"));
        assert_ne!(ipc, own_namespace("ipc"));
        for kind in ["pid", "mnt"] {
            let of_first = namespace(node, &first, kind);
            assert_ne!(of_first, namespace(node, &second, kind));
            assert_ne!(of_first, own_namespace(kind));
        }
        assert_eq!(namespace(node, &first, "net"), own_namespace("net"));

        let answer = node
            .cri()
            .exec_sync(&first, &["/bin/sh", "-c", "echo $$; cat; exit 7"], 0)
            .expect("execute something");
        assert_eq!(answer.exit_code, 7);
        let stats = node.cri().stats(&first).expect("ask for figures");
        assert!(stats.is_some());

        node.cri().stop(&second, 30).expect("stop the polite one");
        assert_eq!(node.cri().exited(&second).exit_code, 5);
        node.cri().stop(&first, 0).expect("kill the other one");
        assert_eq!(node.cri().exited(&first).exit_code, 137);
        pod.stop();
        pod.remove();
    });
}

#[test]
fn memory_limit_kills_container() {
    on_each(|node| {
        let pod = node
            .run_pod_of(pod_config(node, "limited"))
            .unwrap_or_else(|status| panic!("run a pod: {status}"));
        // It asks for all of its buffer at once.
        let script = "dd if=/dev/zero of=/dev/null bs=256M count=1; exit $?";
        let mut config = with_pod("greedy", &["/bin/sh", "-c", script]);
        let linux = config.linux.as_mut().expect("of a Linux container");
        linux.resources = Some(memory_limit(32 << 20));
        let id = pod.start(&config);
        let status = node.cri().exited(&id);
        assert_eq!(
            (status.exit_code, status.reason.as_str()),
            (137, "OOMKilled")
        );
        pod.stop();
        pod.remove();
    });
}

#[test]
fn limits_are_changed_and_figures_read_as_the_runtime_has_them() {
    on_each(|node| {
        let pod = node
            .run_pod_of(pod_config(node, "resized"))
            .unwrap_or_else(|status| panic!("run a pod: {status}"));
        let mut config = with_pod("resized", &["/bin/sleep", "1085"]);
        let linux = config.linux.as_mut().expect("of a Linux container");
        linux.resources = Some(memory_limit(64 << 20));
        let id = pod.start(&config);
        node.cri().update(&id, memory_limit(128 << 20));
        let stats = node
            .cri()
            .stats(&id)
            .expect("ask for figures")
            .expect("figures");
        let memory = stats.memory.expect("memory");
        let set = memory.working_set_bytes.expect("a working set").value;
        let left = memory.available_bytes.map_or(0, |bytes| bytes.value);
        // The newer containerd says what is left to the limit.
        assert!(left == 0 || left + set == 128 << 20, "{set} {left}");
        assert!(set > 0 && set < 64 << 20, "{set}");
        node.cri().stop(&id, 0).expect("kill it");
        pod.stop();
        pod.remove();
    });
}

#[test]
fn a_killed_monitor_and_a_killed_shim_leave_nothing() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let pod = node
            .run_pod_of(pod_config(node, "killed"))
            .unwrap_or_else(|status| panic!("run a pod: {status}"));
        let first = pod.start(&with_pod("first", &["/bin/sleep", "1083"]));
        let second = pod.start(&with_pod("second", &["/bin/sleep", "1084"]));
        let one = process_named("/bin/sleep 1083");
        kill(&monitor_of(one.pid));
        assert_eq!(node.cri().exited(&first).exit_code, 137);
        assert!(!one.is_alive());
        let other = process_named("/bin/sleep 1084");
        kill(&shim_of(other.pid));
        until("containerd has noticed", || {
            let status = node.cri().status(&second).expect("ask for a status");
            (status.state() == ContainerState::ContainerExited).then_some(())
        });
        until("it has ended", || (!other.is_alive()).then_some(()));
        pod.stop();
        pod.remove();
    });
}

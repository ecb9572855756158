//! What a workload can do to others and to Reaper, without capabilities and with a uid of its own.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use reaper_tests::{
    Node, Options,
    containerd::{is_yardstick, makes_containers},
    cri::{
        Pod, container,
        messages::{Capability, ContainerConfig, Int64Value, NamespaceMode, NamespaceOption},
    },
    faults, on_each_with,
    runtime::until,
};

/// A container of this user that has no capabilities.
fn container_of(name: &str, uid: i64, command: &[&str]) -> ContainerConfig {
    let mut config = container(name, command);
    let linux = config.linux.as_mut().expect("a container of Linux");
    let context = linux.security_context.as_mut().expect("a security context");
    context.run_as_user = Some(Int64Value { value: uid });
    context.capabilities = Some(Capability {
        drop_capabilities: vec!["ALL".to_owned()],
        ..Capability::default()
    });
    context.no_new_privs = true;
    config
}

fn attempt(node: &Node, id: &str, script: &str) -> String {
    let done = node.cri().exec_sync(id, &["/bin/sh", "-c", script], 0);
    let done = done.expect("exec");
    String::from_utf8([done.stdout, done.stderr].concat()).expect("text")
}

/// All below a folder, sockets and FIFOs too.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&path));
        }
        found.push(path);
    }
    found
}

fn pod_of(node: &Node, name: &str, uid: i64, command: &[&str]) -> (Pod, String) {
    let pod = node.run_pod(name);
    let id = pod.start(&container_of(name, uid, command));
    (pod, id)
}

#[test]
fn a_workload_of_another_uid_reaches_neither_others_nor_shim_monitor_and_state() {
    // What a yardstick's containers cannot reach is not Reaper's doing.
    if makes_containers() || is_yardstick() {
        return;
    }
    // The node's processes are seen, so it is not for lack of a name that they are not reached.
    on_each_with(&Options::default().overlay(), |node| {
        let script = "umask 077; echo secret > /tmp/of-the-victim; export SECRET=1; \
            echo ready; exec sleep 1111";
        let (victim, _) = pod_of(node, "victim", 41001, &["/bin/sh", "-c", script]);
        until("the victim is ready", || {
            (victim.log("victim").len() == 1).then_some(())
        });
        let (pod, attacker) = pod_of(node, "attacker", 41002, &["/bin/sleep", "1112"]);
        let process = faults::process_named("sleep 1111");
        let (monitor, shim) = (
            faults::monitor_of(process.pid),
            faults::shim_of(process.pid),
        );
        assert_eq!(
            attempt(
                node,
                &attacker,
                &format!("test -d /proc/{}/ns && echo seen", shim.pid)
            ),
            "seen\n"
        );
        for (who, pid) in [
            ("victim", process.pid),
            ("monitor", monitor.pid),
            ("shim", shim.pid),
        ] {
            for script in [
                format!("kill -0 {pid}"),
                format!("kill -KILL {pid}"),
                format!("kill -STOP {pid}"),
                // The kernel asks for the right to attach with ptrace(2).
                format!("cat /proc/{pid}/syscall"),
                format!("cat /proc/{pid}/mem"),
                format!("cat /proc/{pid}/environ"),
                format!("cat /proc/{pid}/maps"),
                format!("ls /proc/{pid}/fd"),
                format!("ls /proc/{pid}/root/"),
                format!("ls /proc/{pid}/cwd/"),
                format!("echo x > /proc/{pid}/fd/1"),
                format!("echo 1000 > /proc/{pid}/oom_score_adj"),
                format!("nsenter --target {pid} --mount true"),
            ] {
                let said = attempt(node, &attacker, &format!("{script}; echo code $?"));
                let refused = ["ermission", "not permitted"]
                    .iter()
                    .any(|word| said.contains(word));
                assert!(
                    refused && !said.contains("code 0"),
                    "{who}: {script}: {said}"
                );
            }
        }
        assert!(
            [&process, &monitor, &shim]
                .iter()
                .all(|one| one.is_alive() && one.state != 'T')
        );

        // The state, the control sockets, the FIFOs of containerd, the layers of the overlay.
        let roots = [
            node.state_root(),
            node.dir().join("overlay"),
            node.dir().join("state"),
        ];
        let all: Vec<PathBuf> = roots.iter().flat_map(|root| below(root)).collect();
        let is = |what: fn(&fs::FileType) -> bool| {
            all.iter()
                .any(|path| fs::symlink_metadata(path).is_ok_and(|it| what(&it.file_type())))
        };
        assert!(
            is(fs::FileType::is_socket) && is(fs::FileType::is_fifo),
            "{all:?}"
        );
        let mut script = String::new();
        for path in &all {
            let path = path.display();
            script += &format!(
                "for it in '{path}'; do \
                   [ -h \"$it\" ] && continue; \
                   [ -d \"$it\" ] && {{ (: > \"$it/filled\") 2>/dev/null && echo \"made in $it\"; continue; }}; \
                   [ -S \"$it\" ] && [ -w \"$it\" ] && echo \"connects to $it\"; \
                   [ -p \"$it\" ] && {{ [ -w \"$it\" ] || [ -r \"$it\" ]; }} && echo \"opens $it\"; \
                   [ -f \"$it\" ] && (: >> \"$it\") 2>/dev/null && echo \"writes $it\"; \
                 done\n"
            );
        }
        let file = node.work().join("attempts");
        fs::write(&file, script).expect("write the attempts");
        let made = attempt(
            node,
            &attacker,
            &format!("sh {}; echo done", file.display()),
        );
        assert_eq!(made, "done\n");

        // Its files and its output.
        let said = attempt(
            node,
            &attacker,
            "cat /tmp/of-the-victim; echo x >> /tmp/of-the-victim; rm -f /tmp/of-the-victim",
        );
        assert_eq!(
            said.matches("denied").count() + said.matches("not permitted").count(),
            3,
            "{said}"
        );
        assert_eq!(victim.log("victim"), ["stdout F ready"]);

        // What an attempt looks like that succeeds, so that all of this is not for another reason.
        let open = node.work().join("open");
        let _listener = UnixListener::bind(&open).expect("a socket");
        let all_may = || fs::Permissions::from_mode(0o777);
        fs::set_permissions(&open, all_may()).expect("open it");
        fs::set_permissions(node.work(), all_may()).expect("open it");
        let at = open.display();
        assert_eq!(
            attempt(
                node,
                &attacker,
                &format!("[ -w {at} ] && echo connects; (: > {at}-new) && echo made")
            ),
            "connects\nmade\n"
        );
        assert_eq!(
            attempt(
                node,
                &attacker,
                "kill -0 $$ && cat /proc/$$/syscall > /dev/null && echo own"
            ),
            "own\n"
        );
        for pod in [pod, victim] {
            pod.stop();
            pod.remove();
        }
    });
}

#[test]
fn with_pid_namespaces_the_processes_of_one_uid_are_closed_to_each_other() {
    if makes_containers() || is_yardstick() {
        return;
    }
    let start = |node: &Node, mode: NamespaceMode, name: &str, number: &str| {
        let choose = |options: Option<&mut NamespaceOption>| {
            options.expect("namespaces").pid = mode.into();
        };
        let mut config = node.pod_config(name);
        let linux = config.linux.as_mut().expect("a pod of Linux");
        let context = linux.security_context.as_mut();
        choose(context.and_then(|context| context.namespace_options.as_mut()));
        let pod = node.run_pod_of(config).expect("run a pod");
        let mut new = container_of(name, 41003, &["/bin/sleep", number]);
        let linux = new.linux.as_mut().expect("a container of Linux");
        let context = linux.security_context.as_mut();
        choose(context.and_then(|context| context.namespace_options.as_mut()));
        let id = pod.start(&new);
        let process = faults::process_named(&format!("/bin/sleep {number}"));
        (pod, id, process.pid)
    };
    let script = |pid: u32| {
        format!(
            "cat /proc/{pid}/environ >/dev/null && ls /proc/{pid}/root/ >/dev/null && kill -0 {pid} && echo reached"
        )
    };
    for (mode, private) in [
        (NamespaceMode::Container, true),
        (NamespaceMode::Pod, true),
        (NamespaceMode::Node, false),
    ] {
        let options = Options::default().overlay().env("REAPER_PID", "private");
        on_each_with(&options, |node| {
            let (one, first, _) = start(node, mode, "one", "1121");
            let (two, _, other) = start(node, mode, "two", "1122");
            let seen = attempt(node, &first, &script(other));
            assert_eq!(!seen.ends_with("reached\n"), private, "{seen}");
            for pod in [one, two] {
                pod.stop();
                pod.remove();
            }
        });
    }
}

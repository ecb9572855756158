//! What a pod's processes may do is what its `securityContext` says.

use std::fs;

use reaper_tests::{
    Options,
    containerd::makes_containers,
    cri::{
        Pod, container,
        messages::{
            Capability, ContainerConfig, LinuxContainerSecurityContext, SecurityProfile,
            security_profile::ProfileType,
        },
    },
    on_each, on_each_with,
    runtime::until,
};

const SHOW: &str = "grep -E '^(CapEff|NoNewPrivs)' /proc/self/status";

/// A container with this security context that shows what it may do, and rests.
fn container_with(
    name: &str,
    change: impl FnOnce(&mut LinuxContainerSecurityContext),
) -> ContainerConfig {
    let script = format!("{SHOW}; exec sleep 1081");
    let mut config = container(name, &["/bin/sh", "-c", &script]);
    let linux = config.linux.as_mut().expect("a container of Linux");
    change(linux.security_context.as_mut().expect("a security context"));
    config
}

/// What the container's processes show: init, and one that is added, which must be the same.
#[track_caller]
fn shown(pod: &Pod, cri: &reaper_tests::cri::Cri, config: &ContainerConfig) -> Vec<String> {
    let name = &config.metadata.as_ref().expect("a name").name;
    let id = pod.start(config);
    let init = until("both lines are logged", || {
        let log = pod.log(name);
        (log.len() == 2).then_some(log)
    });
    let init: Vec<String> = init
        .iter()
        .map(|line| line.replace("stdout F ", ""))
        .collect();
    let exec = cri
        .exec_sync(&id, &["/bin/sh", "-c", SHOW], 0)
        .expect("exec");
    let exec = String::from_utf8(exec.stdout).expect("text");
    assert_eq!(exec.lines().collect::<Vec<_>>(), init);
    init
}

#[test]
fn a_pods_security_context_holds_for_its_container_and_for_exec() {
    on_each(|node| {
        let pod = node.run_pod("limited");
        let cri = node.cri();

        let dropped = container_with("dropped", |context| {
            context.capabilities = Some(Capability {
                drop_capabilities: vec!["ALL".to_owned()],
                ..Capability::default()
            });
            context.no_new_privs = true;
        });
        let nothing = ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"];
        assert_eq!(shown(&pod, &cri, &dropped), nothing);

        let one = container_with("one", |context| {
            context.capabilities = Some(Capability {
                drop_capabilities: vec!["ALL".to_owned()],
                add_capabilities: vec!["NET_BIND_SERVICE".to_owned()],
                ..Capability::default()
            });
        });
        let bind = ["CapEff:\t0000000000000400", "NoNewPrivs:\t0"];
        assert_eq!(shown(&pod, &cri, &one), bind);

        // containerd's own default.
        let usual = container_with("usual", |_| ());
        let usual = shown(&pod, &cri, &usual);
        assert_eq!(usual, ["CapEff:\t00000000a80425fb", "NoNewPrivs:\t0"]);

        pod.stop();
        pod.remove();
    });
}

#[test]
fn a_pods_seccomp_profile_holds_for_its_container_and_for_exec() {
    on_each(|node| {
        let pod = node.run_pod("filtered");
        let script =
            "grep Seccomp: /proc/self/status; unshare --mount true; echo $?; exec sleep 1082";
        let mut config = container("filtered", &["/bin/sh", "-c", script]);
        let linux = config.linux.as_mut().expect("a container of Linux");
        let context = linux.security_context.as_mut().expect("a security context");
        context.seccomp = Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        });
        // The profile allows unshare(2) to who has the capability for it.
        context.capabilities = Some(Capability {
            drop_capabilities: vec!["ALL".to_owned()],
            ..Capability::default()
        });
        let id = pod.start(&config);
        let shown = until("all lines are logged", || {
            let log = pod.log("filtered");
            (log.iter().filter(|line| line.starts_with("stdout")).count() == 2).then_some(log)
        });
        assert!(
            shown.contains(&"stdout F Seccomp:\t2".to_owned()),
            "{shown:?}"
        );
        assert!(shown.contains(&"stdout F 1".to_owned()), "{shown:?}");
        let show = ["/bin/grep", "Seccomp:", "/proc/self/status"];
        let exec = node.cri().exec_sync(&id, &show, 0).expect("exec");
        assert_eq!(exec.stdout, b"Seccomp:\t2\n");
        pod.stop();
        pod.remove();
    });
}

/// Whether the kernel has AppArmor, and containerd its parser.
fn has_apparmor() -> bool {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.first() == Some(&b'Y'))
        && fs::exists("/sbin/apparmor_parser").is_ok_and(|is| is)
}

fn of_the_node() -> SecurityProfile {
    SecurityProfile {
        profile_type: ProfileType::Unconfined.into(),
        localhost_ref: String::new(),
    }
}

#[test]
fn a_pods_apparmor_profile_holds_for_its_container_and_for_exec() {
    on_each_with(&Options::default().apparmor().overlay(), |node| {
        let pod = node.run_pod("confined");
        let folder = node.work().join("mounted");
        fs::create_dir(&folder).expect("make a folder");
        // The capability allows it: what denies it is the profile.
        let mount = format!(
            "mount -t tmpfs none {0} && umount {0} && echo mounted",
            folder.display()
        );
        let script = format!("exec 2>&1; cat /proc/self/attr/current; {mount}; exec sleep 1083");
        let with = |name: &str, profile: Option<SecurityProfile>, no_new_privs| {
            let mut config = container(name, &["/bin/sh", "-c", &script]);
            let linux = config.linux.as_mut().expect("a container of Linux");
            let context = linux.security_context.as_mut().expect("a security context");
            context.capabilities = Some(Capability {
                add_capabilities: vec!["SYS_ADMIN".to_owned()],
                ..Capability::default()
            });
            context.no_new_privs = no_new_privs;
            context.apparmor = profile;
            config
        };
        let own = |name: &str| SecurityProfile {
            profile_type: ProfileType::Localhost.into(),
            localhost_ref: name.to_owned(),
        };
        if !has_apparmor() {
            let refused = pod.create(&with("refused", Some(own("reaper-none")), false));
            let refused = refused.expect_err("there is no AppArmor");
            assert!(refused.message().contains("apparmor"), "{refused}");
            pod.stop();
            pod.remove();
            return;
        }
        let current = ["/bin/cat", "/proc/self/attr/current"];
        let exec = |id: &str, command: &[&str]| {
            let answer = node.cri().exec_sync(id, command, 0).expect("exec");
            let said = [answer.stdout, answer.stderr].concat();
            String::from_utf8(said).expect("text")
        };
        for (name, no_new_privs) in [("usual", false), ("no-new", true)] {
            let id = pod.start(&with(name, None, no_new_privs));
            let log = until("both lines are logged", || {
                let log = pod.log(name);
                (log.len() >= 2).then_some(log)
            });
            assert_eq!(log[0], "stdout F cri-containerd.apparmor.d (enforce)");
            assert!(log[1].contains("denied"), "{log:?}");
            assert_eq!(exec(&id, &current), "cri-containerd.apparmor.d (enforce)\n");
            let said = exec(&id, &["/bin/sh", "-c", &mount]);
            assert!(said.contains("denied"), "{said}");
            assert!(!said.contains("mounted\n"), "{said}");
        }
        let id = pod.start(&with("free", Some(of_the_node()), false));
        let log = until("both lines are logged", || {
            let log = pod.log("free");
            (log.len() >= 2).then_some(log)
        });
        assert_eq!(log, ["stdout F unconfined", "stdout F mounted"]);
        assert_eq!(exec(&id, &current), "unconfined\n");
        let missing = pod.create(&with("missing", Some(own("reaper-none")), false));
        let missing = missing.and_then(|id| node.cri().start(&id));
        let missing = missing.expect_err("there is no such profile");
        assert!(missing.message().contains("reaper-none"), "{missing}");
        pod.stop();
        pod.remove();
    });
}

#[test]
fn a_container_with_users_of_its_own_is_refused_with_the_reason() {
    on_each(|node| {
        if makes_containers() {
            return;
        }
        let mappings = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
        let output = node.ctr_run_with("own-users", &mappings, &["/bin/true"]);
        assert_ne!(output.code, 0, "{output:?}");
        assert!(output.stderr.contains("hostUsers"), "{output:?}");
        node.ctr(&["container", "rm", &node.name("own-users")]);
    });
}

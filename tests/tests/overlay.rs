//! The overlay, on a node that is configured as Reaper is by default.

use std::{fs, path::Path};

use nix::sys::signal::Signal;
use reaper_tests::{
    Options, containerd::is_yardstick, cri::container, image::TOOL, on_each, on_each_with,
    runtime::until,
};

#[test]
fn writes_are_shared_by_workloads_but_not_with_the_host() {
    on_each_with(&Options::default().overlay(), |node| {
        let path = format!("/var/lib/{}", node.name("file"));
        let write = format!("echo written >{path} && cat {path}");
        let output = node.ctr_run("writes", &["/bin/sh", "-c", &write]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (0, "written\n"),
            "{output:?}"
        );
        let output = node.ctr_run("reads", &["/bin/cat", &path]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (0, "written\n"),
            "{output:?}"
        );
        assert!(!Path::new(&path).exists(), "the node has no {path}");
    });
}

#[test]
fn pod_over_overlay_writes_host_path_volume_to_the_host() {
    on_each_with(&Options::default().overlay(), |node| {
        let pod = node.run_pod("covered");
        let volume = node.work().join("volume");
        fs::create_dir(&volume).expect("make a folder");
        let mut config = container(
            "writes",
            &["/bin/sh", "-c", "echo kept >/data-of-a-pod/file"],
        );
        config.mounts.push(reaper_tests::cri::messages::Mount {
            container_path: "/data-of-a-pod".to_owned(),
            host_path: volume.display().to_string(),
            ..Default::default()
        });
        let id = pod.start(&config);
        assert_eq!(
            node.cri().exited(&id).exit_code,
            0,
            "{:?}",
            pod.log("writes")
        );
        assert_eq!(
            fs::read_to_string(volume.join("file")).expect("read the file"),
            "kept\n"
        );
        assert!(
            !Path::new("/data-of-a-pod").exists(),
            "the node has no mount point"
        );
        pod.stop();
        pod.remove();
    });
}

/// The names of the scopes that a node has.
fn scopes(node: &reaper_tests::Node) -> Vec<String> {
    let dir = node.dir().join("overlay/scopes");
    let entries = fs::read_dir(dir).expect("list the scopes");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let names = entries.map(|entry| name(entry).to_string_lossy().into_owned());
    names.collect()
}

#[test]
fn pod_scope_is_removed_with_its_pod() {
    let options = Options::default()
        .overlay()
        .env("REAPER_OVERLAY_SCOPE", "pod");
    on_each_with(&options, |node| {
        let pod = node.run_pod("own");
        let write = pod.start(&container("writes", &["/bin/touch", "/mark-of-a-pod"]));
        assert_eq!(node.cri().exited(&write).exit_code, 0);
        let read = pod.start(&container("reads", &["/bin/ls", "/mark-of-a-pod"]));
        assert_eq!(node.cri().exited(&read).exit_code, 0, "it is the pod's");
        assert_eq!(scopes(node), [format!("pod-{}", pod.id)]);
        pod.stop();
        pod.remove();
        assert_eq!(scopes(node), Vec::<String>::new());

        // Nothing is left of it either if containerd has to clean up after the shim.
        let pod = node.run_pod("killed");
        let id = pod.start(&container("runs", &["/bin/sleep", "1003"]));
        assert_eq!(scopes(node), [format!("pod-{}", pod.id)]);
        let [shim] = node.shims().try_into().expect("one shim");
        shim.signal(Signal::SIGKILL);
        node.cri().exited(&id);
        pod.stop();
        pod.remove();
        until("the overlay is gone", || {
            scopes(node).is_empty().then_some(())
        });
    });
}

#[test]
fn pod_without_overlay_has_its_volumes() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let places = [
            format!("/var/run/secrets/{}", node.name("token")),
            format!("/dev/{}", node.name("termination-log")),
            format!("/{}/deep", node.name("data")),
        ];
        let volume = node.work().join("volume");
        fs::create_dir(&volume).expect("make a folder");
        fs::write(node.work().join("file"), "").expect("make a file");
        let mut config = container("writes", &["/bin/sh", "-c", "true"]);
        for (place, from) in places.iter().zip(["volume", "file", "volume"]) {
            config.mounts.push(reaper_tests::cri::messages::Mount {
                container_path: place.clone(),
                host_path: node.work().join(from).display().to_string(),
                ..Default::default()
            });
        }
        let [secret, log, data] = &places;
        let script = format!("echo secret >{secret}/a; echo end >{log}; cat {data}/a");
        config.command[2] = script;
        let pod = node.run_pod("bare");
        let id = pod.start(&config);
        assert_eq!(node.cri().exited(&id).exit_code, 0);
        until("what it read is logged", || {
            (pod.log("writes") == ["stdout F secret"]).then_some(())
        });
        let log = fs::read_to_string(node.work().join("file"));
        assert_eq!(log.expect("read the file"), "end\n");
        pod.stop();
        pod.remove();
        let top = format!("/{}", node.name("data"));
        for place in places.iter().chain([&top]) {
            assert!(!Path::new(place).exists(), "{place} is removed again");
        }
    });
}

#[test]
fn tool_from_image_runs_in_each_image_mode() {
    let at = format!("$REAPER_IMAGE_ROOT{TOOL}");
    for (mode, overlay, tool) in [
        ("beneath", true, TOOL),
        ("at", true, at.as_str()),
        ("at", false, at.as_str()),
    ] {
        let mut options = Options::default().env("REAPER_IMAGE", mode);
        options.overlay = overlay;
        on_each_with(&options, |node| {
            assert!(!Path::new(TOOL).exists(), "the node has none");
            let output = node.ctr_run("tool", &["/bin/sh", "-c", tool]);
            let said = (output.code, output.stdout.as_str());
            assert_eq!(said, (0, "brought along\n"), "{output:?}");
            let pod = node.run_pod("tool");
            let id = pod.start(&container("tool", &["/bin/sh", "-c", tool]));
            assert_eq!(node.cri().exited(&id).exit_code, 0);
            until("it has spoken", || {
                (pod.log("tool") == ["stdout F brought along"]).then_some(())
            });
            pod.stop();
            pod.remove();
        });
    }
}

#[test]
fn a_pod_s_files_are_what_its_spec_says() {
    on_each_with(&Options::default().overlay(), |node| {
        let mut config = node.pod_config("files");
        config.dns_config = Some(reaper_tests::cri::messages::DnsConfig {
            servers: vec!["192.0.2.53".to_owned()],
            searches: vec!["pods.example".to_owned()],
            ..Default::default()
        });
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().privileged = true;
        let pod = node.run_pod_of(config).expect("run a pod with DNS servers");
        let run = |name: &str, script: &str, read_only: bool, privileged: bool| {
            let mut container = container(name, &["/bin/sh", "-c", script]);
            let linux = container.linux.get_or_insert_default();
            let security = linux.security_context.get_or_insert_default();
            security.readonly_rootfs = read_only;
            security.privileged = privileged;
            if !privileged {
                // As the kubelet does.
                security.masked_paths = vec!["/proc/keys".to_owned(), "/proc/acpi".to_owned()];
                security.readonly_paths = vec!["/proc/sys".to_owned()];
            }
            let id = pod.start(&container);
            let exit = node.cri().exited(&id).exit_code;
            (exit, pod.log(name))
        };
        let names = "cat /etc/resolv.conf";
        let (code, log) = run("names", names, false, false);
        assert!(
            log.iter()
                .any(|line| line.contains("nameserver 192.0.2.53")),
            "{code} {log:?}"
        );
        // Each file that could be made is removed, and named.
        let file = node.name("try");
        let write = format!(
            "for dir in / /opt /run /sys /dev /dev/shm; do
                 (echo >$dir/{file}) 2>/dev/null && rm $dir/{file} && echo $dir; done
             test -w /proc/sys/vm/swappiness && echo sysctls
             test -s /proc/keys || cat /proc/keys | grep . && echo keys; true"
        );
        assert_eq!(
            run("locked", &write, true, false),
            (0, vec!["stdout F /dev/shm".to_owned()])
        );
        let (code, log) = run("open", &write, false, true);
        assert_eq!(code, 0);
        for writable in ["/", "/run", "sysctls"] {
            let line = format!("stdout F {writable}");
            assert!(log.contains(&line), "{writable}: {log:?}");
        }
        pod.stop();
        pod.remove();
    });
}

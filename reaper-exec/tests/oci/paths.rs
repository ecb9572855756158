//! Paths of a bundle that links of its image lead elsewhere: the runtime follows them in the container's root.

use std::{fs, os::unix::fs::symlink, path::Path};

use reaper_exec::{Executor as _, Signal, Target, engine};
use reaper_spec::ContainerId;
use serde_json::{Value, json};

use crate::{
    output::capture,
    rig::{Rig, cases, exec_request},
};

cases! {
    a_mounts_destination_makes_nothing_on_the_host,
    masked_and_read_only_paths_leave_the_host_as_it_is,
    a_working_directory_is_none_of_the_hosts,
    an_execd_process_ends_whose_working_directory_is_the_hosts,
}

/// What the tests' mounts are called in the table of mounts.
const SOURCE: &str = "reaper-test-mount";

/// A folder of the host, and the names under which links of the image seem to lead there.
struct Outside {
    folder: std::path::PathBuf,
    names: Vec<String>,
}

impl Outside {
    fn new(rig: &Rig) -> Self {
        let folder = rig.path("outside");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), "of the host").unwrap();
        let path = folder.to_str().unwrap().to_owned();
        let here = std::process::id();
        // The container is in the host's pid namespace, so these are processes whose root is the host's.
        let names = [
            path.clone(),
            format!("/link{path}"),
            "/absolute".to_owned(),
            "/up".to_owned(),
            "/init".to_owned(),
            format!("/proc/1/root{path}"),
            format!("/proc/{here}/root{path}"),
            format!("/proc/self/root{path}"),
            format!("/link/proc/{here}/root{path}"),
        ];
        Self {
            folder,
            names: names.into(),
        }
    }

    /// Makes the links in the image of a bundle.
    fn link_in(&self, bundle: &Path) {
        let (image, path) = (bundle.join("rootfs"), self.folder.to_str().unwrap());
        let up = format!("{}{}", "../".repeat(20), &path[1..]);
        symlink("/", image.join("link")).unwrap();
        symlink(path, image.join("absolute")).unwrap();
        symlink(up, image.join("up")).unwrap();
        symlink(format!("/proc/1/root{path}"), image.join("init")).unwrap();
    }

    #[track_caller]
    fn is_as_it_was(&self, name: &str) {
        let entries = fs::read_dir(&self.folder).unwrap();
        let entries: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(entries, ["file"], "made by way of {name}");
        let text = fs::read_to_string(self.folder.join("file")).unwrap();
        assert_eq!(text, "of the host", "{name}");
        // By a mount on it, neither could be written to.
        fs::write(self.folder.join("file"), "of the host").unwrap();
    }
}

/// Runs a script in a container in the host's pid namespace. Returns what it printed, or nothing where the
/// runtime has refused the container.
async fn run(
    rig: &Rig,
    outside: &Outside,
    script: &str,
    change: impl FnOnce(&mut Value),
) -> Option<String> {
    let (stdio, output) = capture();
    let new = rig.container("web", rig.shell(script), stdio, |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        change(spec);
    });
    let (id, bundle): (ContainerId, _) = (new.id.clone(), new.bundle.clone());
    outside.link_in(&bundle);
    let created = rig.engine.create(new).await;
    let printed = match created {
        Ok(_) => {
            // A working directory is entered only then by some.
            let started = rig.engine.start(&id).await;
            if started.is_ok() {
                rig.engine.wait(&id).await.unwrap();
            }
            rig.engine.delete(&id, true).await.unwrap();
            started.is_ok().then(|| output.all())
        }
        Err(engine::Error::Executor(reaper_exec::Error::Setup { step, .. })) => {
            let steps = [
                &format!("{} create", rig.runtime),
                "enter the working directory",
            ];
            assert!(steps.contains(&&*step), "{step}");
            None
        }
        Err(error) => panic!("{error}"),
    };
    fs::remove_dir_all(bundle).unwrap();
    printed
}

async fn a_mounts_destination_makes_nothing_on_the_host(rig: &Rig) {
    let outside = Outside::new(rig);
    let mut made = 0;
    for name in &outside.names {
        for (kind, source, options) in [
            ("tmpfs", SOURCE, json!(["nosuid"])),
            ("bind", "/usr/share", json!(["rbind", "ro"])),
        ] {
            let mount = json!({
                "destination": format!("{name}/made"), "type": kind, "source": source, "options": options,
            });
            let printed = run(rig, &outside, "cat /proc/self/mounts", |spec| {
                spec["mounts"].as_array_mut().unwrap().push(mount);
            });
            let printed = printed.await;
            outside.is_as_it_was(name);
            if let Some(mounts) = printed {
                made += 1;
                let is_there = mounts.lines().any(|line| {
                    let at = line.split(' ').nth(1);
                    at.is_some_and(|at| at.ends_with("/made"))
                });
                assert!(is_there, "{name}: {mounts}");
            }
        }
    }
    // A path that needs no link is one of the root's.
    assert!(made >= 2, "{made}");
}

async fn masked_and_read_only_paths_leave_the_host_as_it_is(rig: &Rig) {
    let outside = Outside::new(rig);
    for name in &outside.names {
        for field in ["maskedPaths", "readonlyPaths"] {
            let script = "echo ran";
            let printed = run(rig, &outside, script, |spec| {
                spec["linux"][field] = json!([name, format!("{name}/file")]);
            });
            let printed = printed.await;
            outside.is_as_it_was(name);
            if let Some(printed) = printed {
                assert_eq!(printed, "ran\n", "{name}");
            }
        }
    }
}

async fn a_working_directory_is_none_of_the_hosts(rig: &Rig) {
    let outside = Outside::new(rig);
    // What the runtime itself has open is numbered from 3 on.
    let descriptors = (3..20).map(|number| format!("/proc/self/fd/{number}"));
    let above = (3..20).map(|number| format!("/proc/self/fd/{number}/../../../../../.."));
    for name in outside
        .names
        .iter()
        .cloned()
        .chain(descriptors)
        .chain(above)
    {
        let script = "cat file ./etc/machine-id ./config.json 2>/dev/null; echo ran";
        let printed = run(rig, &outside, script, |spec| {
            spec["process"]["cwd"] = name.as_str().into();
        });
        let printed = printed.await;
        if let Some(printed) = printed {
            assert_eq!(printed, "ran\n", "{name}");
        }
    }
}

async fn an_execd_process_ends_whose_working_directory_is_the_hosts(rig: &Rig) {
    let outside = Outside::new(rig);
    let (stdio, _output) = capture();
    let new = rig.container("web", rig.shell("exec sleep 1000"), stdio, |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let (id, bundle) = (new.id.clone(), new.bundle.clone());
    outside.link_in(&bundle);
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let executor = rig.engine.executor();
    for (number, name) in outside.names.iter().enumerate() {
        let (stdio, _output) = capture();
        let mut process = rig.shell("exec sleep 1000");
        process.cwd = name.into();
        let exec = format!("exec{number}").parse().unwrap();
        executor
            .exec(&id, &exec, exec_request(process, stdio))
            .await
            .unwrap();
        let target = Target::Exec(id.clone(), exec);
        match executor.start(&target).await {
            Ok(process) => {
                let entered = format!("/proc/{}/cwd/file", process.pid);
                assert!(!Path::new(&entered).exists(), "{name}");
                executor.kill(&target, Signal::KILL, false).await.unwrap();
            }
            Err(reaper_exec::Error::Setup { .. } | reaper_exec::Error::Execve { .. }) => {}
            Err(error) => panic!("{name}: {error}"),
        }
        executor.wait(&target).await.unwrap();
        executor.delete(&target).await.unwrap();
    }
    rig.engine.delete(&id, true).await.unwrap();
}

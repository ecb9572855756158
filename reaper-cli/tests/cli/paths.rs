//! Where the paths of a process lead.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
};

use nix::{
    sys::stat::Mode,
    unistd::{Gid, Uid, chown, mkfifo},
};
use serde_json::{Value, json};

use crate::rig::{Rig, shell};

/// Makes a bundle with a process and volumes, each of a directory's name and a destination.
fn bundle(rig: &Rig, name: &str, process: &Value, volumes: &[(&str, &str)]) -> String {
    let path = rig.path(name);
    fs::create_dir_all(&path).unwrap();
    let mounts: Vec<_> = volumes
        .iter()
        .map(|(source, destination)| {
            fs::create_dir_all(rig.path(source)).unwrap();
            json!({
                "destination": destination,
                "type": "bind",
                "source": rig.path(source),
                "options": ["bind"],
            })
        })
        .collect();
    let config = json!({ "process": process, "mounts": mounts });
    fs::write(path.join("config.json"), config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn process(cwd: &str, uid: u32, args: &[&str]) -> Value {
    json!({
        "args": args,
        "cwd": cwd,
        "env": ["PATH=/usr/bin:/bin"],
        "user": { "uid": uid, "gid": uid },
    })
}

#[test]
fn a_working_directory_does_not_lead_into_another_container() {
    let rig = Rig::with_overlay();
    let sleep = process("/", 0, &["sleep", "1000"]);
    let other = bundle(&rig, "other", &sleep, &[("secret", "/vol")]);
    fs::write(rig.path("secret/key"), "TOPSECRET").unwrap();
    rig.quietly(&["run", "--detach", "--bundle", &other, "other"]);
    let pid = rig.state("other")["pid"].as_u64().unwrap();
    rig.running("c");
    let cwd = format!("/proc/{pid}/root/vol");
    for uid in [0, 65534] {
        let cat = process(&cwd, uid, &["cat", "key"]);
        let init = bundle(&rig, "init", &cat, &[]);
        let user = uid.to_string();
        let link = rig.path("link");
        let _ = fs::remove_file(&link);
        symlink(&cwd, &link).unwrap();
        let link = link.to_str().unwrap();
        for (code, args) in [
            (1, vec!["run", "--bundle", &init, "d"]),
            (
                255,
                vec!["exec", "--user", &user, "--cwd", &cwd, "c", "cat", "key"],
            ),
            (
                255,
                vec!["exec", "--user", &user, "--cwd", link, "c", "cat", "key"],
            ),
            (
                255,
                vec![
                    "exec",
                    "--user",
                    &user,
                    "--cwd",
                    "/proc/self/fd/0",
                    "c",
                    "true",
                ],
            ),
        ] {
            let error = rig.fails(code, &args);
            assert!(error.contains("another process's files"), "{error}");
        }
    }
}

#[test]
fn no_folder_is_made_on_the_node_for_a_working_directory() {
    let rig = Rig::with_overlay();
    let own = std::process::id();
    for uid in [0, 65534] {
        for name in ["new/deep", ""] {
            let cwd = format!("/proc/{own}/root{}", rig.path(name).display());
            let touch = process(&cwd, uid, &["touch", "on-the-node"]);
            let error = rig.fails(
                1,
                &["run", "--bundle", &bundle(&rig, "b", &touch, &[]), "c"],
            );
            assert!(error.contains("another process's files"), "{error}");
        }
    }
    assert!(!rig.path("new").exists());
    assert!(!rig.path("on-the-node").exists());
}

#[test]
fn a_missing_working_directory_is_made_for_all_to_enter_whatever_the_callers_umask() {
    let rig = Rig::with_overlay();
    let script = ["sh", "-c", "stat -c '%a %u' . .. /point /point/deep"];
    let process = process("/srv/missing/deep", 65534, &script);
    let bundle = bundle(&rig, "b", &process, &[("v", "/point/deep/volume")]);
    let program = env!("CARGO_BIN_EXE_reaper-runtime");
    let (root, config) = (rig.root(), rig.path("config.toml"));
    let call = format!(
        "umask 077; exec {program} --root {} --config {} run --bundle {bundle} c",
        root.display(),
        config.display()
    );
    let output = Command::new("sh").args(["-c", &call]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "755 0\n755 0\n755 0\n755 0\n");
}

#[test]
fn a_missing_working_directory_on_a_volume_is_made_with_the_rights_of_the_process() {
    let rig = Rig::with_overlay();
    let id = process("/vol/new/deep", 65534, &["true"]);
    let bundle = bundle(&rig, "b", &id, &[("v", "/vol")]);
    let error = rig.fails(1, &["run", "--bundle", &bundle, "c"]);
    assert!(error.contains("Permission denied"), "{error}");
    assert!(
        error.contains("make the working directory /vol/new/deep"),
        "{error}"
    );
    assert!(!rig.path("v/new").exists());
    let nobody = (Some(Uid::from_raw(65534)), Some(Gid::from_raw(65534)));
    chown(&rig.path("v"), nobody.0, nobody.1).unwrap();
    rig.ok(&["run", "--bundle", &bundle, "c"]);
    let made = fs::metadata(rig.path("v/new/deep")).unwrap();
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o777),
        (65534, 65534, 0o755)
    );
}

#[test]
fn a_program_is_not_looked_for_among_another_processes_files() {
    let rig = Rig::with_overlay();
    let own = std::process::id();
    let outside = rig.path("outside");
    fs::write(&outside, "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(&outside, PermissionsExt::from_mode(0o755)).unwrap();
    let folder = format!("/proc/{own}/root{}", rig.path("").display());
    let path = format!("PATH={}:/usr/bin", folder.trim_end_matches('/'));
    let named = format!("{folder}outside");
    for program in [named.as_str(), "/proc/self/exe", "outside"] {
        let error = rig.fails(1, &["run", "--env", &path, "--", program]);
        assert!(error.contains("another process's files"), "{error}");
    }
    let inside = rig.ok(&["run", "--env", &path, "--", "echo", "ran"]);
    assert_eq!(inside, "ran\n");
}

/// Until it executes its program a process is the monitor's, whose file on the host
/// `/proc/self/exe` names.
#[test]
fn an_interpreter_is_not_looked_for_among_another_processes_files() {
    let rig = Rig::with_overlay();
    let script = |name: &str, interpreter: &str| {
        let path = rig.path(name);
        fs::write(&path, format!("#! {interpreter}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let own = std::process::id();
    let link = rig.path("link");
    symlink("/proc/thread-self/exe", &link).unwrap();
    let odd = rig.path("odd\u{b}name");
    symlink("/proc/thread-self/exe", &odd).unwrap();
    let direct = script("direct", "/proc/self/exe --version");
    let scripts = [
        // The kernel ends the name at a NUL, and takes other whitespace than spaces and tabs for a part of it.
        script("ended", "/proc/self/exe\0 x"),
        script("odd", odd.to_str().unwrap()),
        script("through", &direct),
        script("by-link", link.to_str().unwrap()),
        script("others", &format!("/proc/{own}/root/bin/sh")),
        direct,
    ];
    rig.running("c");
    for script in &scripts {
        for call in [&["run", "--"][..], &["exec", "c"]] {
            let output = rig.call(&[call, &[script]].concat());
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{script}");
            assert!(error.contains("its interpreter /"), "{error}");
            assert!(error.contains("another process's files"), "{error}");
        }
    }
    let usual = script("usual", "/bin/true");
    rig.ok(&["run", "--", &usual]);
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn the_program_of_a_monitor_cannot_be_changed_by_way_of_it() {
    let rig = Rig::new();
    rig.running("c");
    let pid = rig.state("c")["pid"].to_string();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let monitor = stat.rsplit(')').next().unwrap().split(' ').nth(2).unwrap();
    let program = PathBuf::from(format!("/proc/{monitor}/exe"));
    let mode = fs::metadata(&program).unwrap().permissions();
    let changed = fs::set_permissions(&program, mode);
    // Before Linux 5.12 the kernel makes no such mount.
    if kernel() >= (5, 12) {
        let refused = changed.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::libc::EROFS), "{refused}");
    }
    rig.ok(&["delete", "--force", "c"]);
}

/// The first two numbers of the kernel's version.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn a_program_that_was_handed_over_open_is_run() {
    let rig = Rig::new();
    let program = env!("CARGO_BIN_EXE_reaper-runtime");
    let (root, config) = (rig.root(), rig.path("config.toml"));
    let call = format!(
        "exec 3</bin/echo; exec {program} --root {} --config {} run --preserve-fds 1 -- \
         /proc/self/fd/3 ran",
        root.display(),
        config.display()
    );
    let output = Command::new("sh").args(["-c", &call]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ran\n");
}

#[test]
fn a_fifo_in_the_place_of_the_accounts_holds_up_no_process() {
    let rig = Rig::with_overlay();
    mkfifo(&rig.path("fifo"), Mode::S_IRWXU).unwrap();
    let mut spec = json!({ "process": shell("echo $HOME") });
    spec["mounts"] = json!([{
        "destination": "/etc/passwd",
        "type": "bind",
        "source": rig.path("fifo"),
        "options": ["bind"],
    }]);
    let bundle = rig.path("b");
    fs::create_dir(&bundle).unwrap();
    fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    let home = rig.ok(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
    assert_eq!(home, "/\n");
}

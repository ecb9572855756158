//! What blocks a node: monitors that do not answer, a state root that cannot be written, files that
//! are something else, streams that take nothing.

use std::{
    fs::{self, File},
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::{
    mount::{MsFlags, mount, umount},
    sys::{
        signal::{Signal, kill},
        stat::{Mode, SFlag, makedev, mknod},
    },
    unistd::{Pid, mkfifo},
};

use crate::rig::{Rig, code, is_alive};

/// Starts a container whose record names no log, so that nothing is left when the record is lost.
fn without_log(rig: &Rig, id: &str) {
    let bundle = rig.shell("exec sleep 1000");
    rig.quietly(&["run", "--detach", "--bundle", &bundle, id]);
}

/// The monitor of a container, stopped.
fn stop_monitor(rig: &Rig, id: &str) -> Pid {
    let plan = fs::read_to_string(rig.root().join(id).join("plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let pid = plan["monitor"]["pid"].as_i64().unwrap();
    let monitor = Pid::from_raw(pid.try_into().unwrap());
    kill(monitor, Signal::SIGSTOP).unwrap();
    monitor
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_stopped_monitor_holds_up_no_command_and_is_named() {
    let rig = Rig::new();
    rig.running("good");
    rig.running("bad");
    let process = rig.state("bad")["pid"].to_string();
    let monitor = stop_monitor(&rig, "bad");
    let log = rig.root().with_extension("log");
    let to_log = ["--log", log.to_str().unwrap(), "list"];
    for command in [&to_log[2..], &to_log] {
        let listed = rig.call(command);
        assert_eq!(code(listed.status), 1);
        let (out, err) = (text(&listed.stdout), text(&listed.stderr));
        assert!(out.contains("good") && out.contains("bad"), "{out}");
        let named = format!("(process {monitor}) does not answer");
        assert_eq!(err.matches(&named).count(), 1, "{err}");
    }
    assert_eq!(rig.state("bad")["status"], "running");
    assert!(rig.ok(&["ps", "bad"]).contains(&process));
    assert!(rig.ok(&["events", "--stats", "bad"]).contains("stats"));
    // The reader of its output sees the end of it, too.
    let refused = rig.call(&["exec", "bad", "true"]);
    assert_eq!(code(refused.status), 255);
    assert!(
        text(&refused.stderr).contains("does not answer"),
        "{refused:?}"
    );
    rig.ok(&["kill", "bad", "KILL"]);
    assert_eq!(rig.state("bad")["exit_code"], 137);
    rig.ok(&["delete", "bad"]);
    assert!(!is_alive(&process));
    assert!(!is_alive(&monitor.to_string()));

    let process = rig.state("good")["pid"].to_string();
    stop_monitor(&rig, "good");
    rig.ok(&["delete", "--force", "good"]);
    assert!(!is_alive(&process));
}

/// A filesystem of its own for the state root.
struct Medium(PathBuf);

impl Medium {
    fn of(rig: &Rig) -> Self {
        let root = rig.root();
        fs::create_dir(&root).unwrap();
        let options = Some("size=1m");
        mount(
            Some("tmpfs"),
            &root,
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .unwrap();
        Self(root)
    }

    fn set_read_only(&self, read_only: bool) {
        let mut flags = MsFlags::MS_REMOUNT;
        flags.set(MsFlags::MS_RDONLY, read_only);
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).unwrap();
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

#[test]
fn on_a_full_state_root_a_container_ends_is_known_and_is_deleted() {
    let rig = Rig::new();
    let _medium = Medium::of(&rig);
    rig.running("web");
    // As full as it gets: the kernel gives the last bytes of a page.
    let _ = fs::write(rig.root().join(".fill"), vec![0; 2 << 20]);
    rig.ok(&["kill", "web", "KILL"]);
    assert_eq!(rig.ok(&["wait", "web"]).trim(), "137");
    let state = rig.state("web");
    assert_eq!(
        (&state["status"], &state["exit_code"]),
        (&"stopped".into(), &137.into())
    );
    rig.ok(&["delete", "web"]);
    assert!(!rig.root().join("web").exists());
}

#[test]
fn an_exit_that_could_not_be_recorded_is_not_forgotten() {
    let rig = Rig::new();
    let medium = Medium::of(&rig);
    let fifo = rig.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let script = format!("read line < {}; exit 7", fifo.display());
    rig.detached("web", &["sh", "-c", &script]);
    medium.set_read_only(true);
    fs::write(&fifo, "go on\n").unwrap();
    assert_eq!(rig.ok(&["wait", "web"]).trim(), "7");
    // No client is connected now, and the record is not there.
    let listed = rig.call(&["list", "--format", "json"]);
    assert_eq!(code(listed.status), 1);
    assert!(text(&listed.stderr).contains("Read-only"), "{listed:?}");
    let states: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (&states[0]["status"], &states[0]["exit_code"]),
        (&"stopped".into(), &7.into())
    );
    let pruned = rig.call(&["prune"]);
    assert_eq!(code(pruned.status), 1, "{pruned:?}");
    medium.set_read_only(false);
    assert!(rig.ok(&["list"]).contains("web"));
    rig.ok(&["delete", "web"]);
}

#[test]
fn on_a_read_only_state_root_a_container_is_killed_by_force_and_listed() {
    let rig = Rig::new();
    let medium = Medium::of(&rig);
    rig.running("web");
    let process = rig.state("web")["pid"].to_string();
    medium.set_read_only(true);
    let refused = rig.call(&["delete", "--force", "web"]);
    assert!(text(&refused.stderr).contains("Read-only"), "{refused:?}");
    assert!(!is_alive(&process));
    let listed = rig.call(&["list"]);
    assert!(text(&listed.stdout).contains("stopped"), "{listed:?}");
    medium.set_read_only(false);
    rig.ok(&["prune"]);
}

#[test]
fn a_record_that_is_no_file_or_of_the_future_hides_no_other_container() {
    let rig = Rig::new();
    rig.running("good");
    type Make = fn(&Path);
    let others: [(Make, &str); 5] = [
        (|path| mkfifo(path, Mode::S_IRWXU).unwrap(), "regular file"),
        (|path| fs::create_dir(path).unwrap(), "regular file"),
        (
            |path| fs::write(path, "{\"vers").unwrap(),
            "not a container's record",
        ),
        (|path| fs::write(path, "").unwrap(), "empty"),
        (
            |path| fs::write(path, "{\"version\": 4711}").unwrap(),
            "4711",
        ),
    ];
    for (make, reason) in others {
        without_log(&rig, "bad");
        let record = rig.root().join("bad/state.json");
        fs::remove_file(&record).unwrap();
        make(&record);
        let listed = rig.call(&["list"]);
        assert_eq!(code(listed.status), 1, "{reason}");
        let (out, err) = (text(&listed.stdout), text(&listed.stderr));
        assert!(out.contains("good"), "{out}");
        assert!(
            err.contains("bad") && err.contains(reason),
            "{reason}: {err}"
        );
        rig.ok(&["kill", "bad", "KILL"]);
        rig.ok(&["delete", "--force", "bad"]);
    }
    rig.ok(&["list"]);
}

/// Starts a container with a volume: its init process.
fn with_volume(rig: &Rig, id: &str) -> String {
    let bundle = rig.path("bundle-with-volume");
    fs::create_dir_all(&bundle).unwrap();
    let config = serde_json::json!({
        "process": {"args": ["sleep", "1000"], "cwd": "/"},
        "mounts": [{
            "destination": "/volume/deep",
            "type": "bind",
            "source": bundle,
            "options": ["bind"],
        }],
    });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    rig.quietly(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), id]);
    rig.state(id)["pid"].to_string()
}

#[test]
fn what_is_in_the_place_of_a_file_holds_back_no_deletion() {
    let rig = Rig::with_overlay();
    rig.running("good");
    let base = rig.path("base");
    type Make = fn(&Path);
    let others: [Make; 3] = [
        |path| mkfifo(path, Mode::S_IRWXU).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| fs::write(path, "{\"version\": 4711}").unwrap(),
    ];
    // Each is something else when the container is killed, and with `late` only once it has been.
    let files = [
        (base.join("mount-points.json"), false),
        (base.join("scopes/node/layers.json"), false),
        (rig.root().join("bad/monitor"), false),
        (rig.root().join("bad/plan.json"), true),
        (rig.root().join("bad/exit.json"), true),
    ];
    for (file, late) in files {
        for make in others {
            let pid = with_volume(&rig, "bad");
            let replace = || {
                let was = fs::read(&file).ok();
                fs::remove_file(&file).unwrap();
                make(&file);
                was
            };
            let before = (!late).then(replace);
            rig.ok(&["kill", "bad", "KILL"]);
            rig.ok(&["wait", "bad"]);
            let was = before.unwrap_or_else(replace);
            rig.ok(&["delete", "--force", "bad"]);
            assert!(!is_alive(&pid), "{file:?}");
            assert!(!rig.root().join("bad").exists(), "{file:?}");
            if file.starts_with(&base) {
                fs::remove_file(&file)
                    .or_else(|_| fs::remove_dir(&file))
                    .unwrap();
                fs::write(&file, was.unwrap()).unwrap();
            }
            rig.ok(&["exec", "good", "true"]);
        }
    }
}

#[test]
fn a_pid_file_that_cannot_be_written_leaves_nothing_running() {
    let rig = Rig::new();
    rig.running("web");
    let ran = rig.path("ran");
    let touch = format!("touch {}; sleep 1000", ran.display());
    for detach in [&["--detach"][..], &[]] {
        let mut args = vec!["exec"];
        args.extend(detach);
        args.extend([
            "--pid-file",
            "/no/such/folder/pid",
            "web",
            "sh",
            "-c",
            &touch,
        ]);
        let refused = rig.fails(255, &args);
        assert!(refused.contains("/no/such/folder/pid"), "{refused}");
        let processes: Vec<u32> =
            serde_json::from_str(&rig.ok(&["ps", "--format", "json", "web"])).unwrap();
        assert_eq!(processes.len(), 1, "{args:?}");
        assert!(!ran.exists(), "{args:?}: the program has run");
    }
    let bundle = rig.shell("sleep 1000");
    let options = [
        "--pid-file",
        "/no/such/folder/pid",
        "--bundle",
        &bundle,
        "other",
    ];
    for command in [&["create"][..], &["run"], &["run", "--detach"]] {
        let args: Vec<&str> = command.iter().copied().chain(options).collect();
        assert!(!rig.call(&args).status.success(), "{args:?}");
        assert_eq!(rig.ok(&["list", "--quiet"]), "web\n", "{args:?}");
    }
}

#[test]
fn a_failed_start_of_an_exec_leaves_no_pid_file() {
    let rig = Rig::new();
    rig.running("web");
    let path = rig.path("pid");
    let pid_file = path.to_str().unwrap();
    for detach in [&["--detach"][..], &[]] {
        let mut args = vec!["exec"];
        args.extend(detach);
        args.extend(["--pid-file", pid_file, "web", "/no/such/program"]);
        assert_eq!(code(rig.call(&args).status), 255);
        assert!(!path.exists(), "{args:?}");
    }
}

/// A copy of a device node of memory.
fn device(rig: &Rig, name: &str, minor: u64) -> PathBuf {
    let path = rig.path(name);
    if !path.exists() {
        mknod(&path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, minor)).unwrap();
    }
    path
}

/// Calls the program with its standard output closed.
fn with_closed_stdout(rig: &Rig, args: &[&str]) -> Output {
    let mut command = rig.command(args);
    command.stdout(Stdio::inherit()).stderr(Stdio::piped());
    // SAFETY: close(2) is async-signal-safe, and the child owns its copy of the descriptor.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            nix::libc::close(1);
            Ok(())
        })
    };
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let rig = Rig::new();
    let full = device(&rig, "full", 7);
    let printing = [
        &["--help"][..],
        &["run", "--help"],
        &["list"],
        &["list", "--format", "json"],
        &["features"],
        &["version"],
        &["--version"],
        &["completions", "bash"],
    ];
    for args in printing {
        let mut command = rig.command(args);
        let out = File::options().write(true).open(&full).unwrap();
        let output = command.stdout(out).output().unwrap();
        assert_eq!(code(output.status), 1, "{args:?}");
        let error = text(&output.stderr);
        assert!(error.contains("No space left"), "{args:?}: {error}");
        let output = with_closed_stdout(&rig, args);
        assert_eq!(code(output.status), 1, "{args:?}");
        let error = text(&output.stderr);
        assert!(error.contains("Bad file descriptor"), "{args:?}: {error}");
    }
    // What prints nothing needs no stream.
    rig.running("web");
    assert!(
        with_closed_stdout(&rig, &["kill", "web", "KILL"])
            .status
            .success()
    );
    assert!(
        with_closed_stdout(&rig, &["delete", "--force", "web"])
            .status
            .success()
    );
}

#[test]
fn messages_that_cannot_be_printed_are_no_panic() {
    let rig = Rig::new();
    without_log(&rig, "bad");
    fs::write(rig.root().join("bad/state.json"), "").unwrap();
    let full = device(&rig, "full", 7);
    for args in [
        &["list"][..],
        &["state", "bad"],
        &["nonsense"],
        &["--debug", "list"],
    ] {
        let mut command = rig.command(args);
        let err = File::options().write(true).open(&full).unwrap();
        let status = command.stderr(err).stdout(Stdio::null()).status().unwrap();
        assert_eq!(code(status), 1, "{args:?}: a panic ends with 101");
    }
}

#[test]
fn a_detached_run_whose_name_cannot_be_printed_is_undone() {
    let rig = Rig::new();
    let full = device(&rig, "full", 7);
    let mut command = rig.command(&["run", "--detach", "--", "sleep", "1000"]);
    let out = File::options().write(true).open(full).unwrap();
    assert_eq!(code(command.stdout(out).status().unwrap()), 1);
    assert_eq!(rig.ok(&["list", "--quiet"]), "");
}

#[test]
fn a_run_that_is_killed_before_the_start_leaves_nothing_running() {
    let rig = Rig::new();
    let pid_file = rig.path("pid");
    mkfifo(&pid_file, Mode::S_IRWXU).unwrap();
    let mut command = rig.command(&["run", "--name", "web", "--pid-file"]);
    command.arg(&pid_file).args(["--", "sleep", "1000"]);
    let mut run = command.stderr(Stdio::null()).spawn().unwrap();
    // It waits for a reader of the pid file, after the creation and before the start.
    while !text(&rig.call(&["state", "web"]).stdout).contains("\"created\",") {
        assert_eq!(run.try_wait().unwrap(), None, "it does not wait any more");
    }
    let process = rig.state("web")["pid"].to_string();
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(rig.ok(&["wait", "web"]).trim(), "137");
    assert_eq!(rig.state("web")["status"], "stopped");
    assert!(!is_alive(&process));
    rig.ok(&["delete", "web"]);
}

#[test]
fn a_root_given_by_a_descriptor_is_where_it_leads() {
    let rig = Rig::new();
    let folder = rig.path("folder");
    fs::create_dir(&folder).unwrap();
    let opened = File::open(&folder).unwrap();
    let inherited = rustix::io::fcntl_dupfd_cloexec(&opened, 100).unwrap();
    let number = inherited.as_raw_fd();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let call = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reaper-runtime"));
        command.arg("--config").arg(rig.path("config.toml"));
        command.arg("--root").arg(format!("/dev/fd/{number}"));
        command.args(args).output().unwrap()
    };
    let ran = call(&["run", "--keep", "--name", "web", "--", "echo", "hi"]);
    assert_eq!(text(&ran.stdout), "hi\n", "{ran:?}");
    assert!(folder.join("web/state.json").exists());
    assert!(call(&["delete", "web"]).status.success());
    drop(inherited);
    let refused = call(&["list"]);
    assert!(
        text(&refused.stderr).contains("the state root: /dev/fd/"),
        "{refused:?}"
    );
}

#[test]
fn paths_that_are_not_utf8_are_refused_by_name_and_leave_nothing() {
    let rig = Rig::new();
    let odd = rig.path("x").join(std::ffi::OsStr::from_bytes(b"o\xffd"));
    fs::create_dir_all(&odd).unwrap();
    fs::write(
        odd.join("config.json"),
        r#"{"process":{"args":["true"],"cwd":"/"}}"#,
    )
    .unwrap();
    let check = |command: &mut Command, option: &str| {
        let output = command.output().unwrap();
        assert_eq!(code(output.status), 1, "{option}");
        let error = text(&output.stderr);
        assert!(
            error.contains(option) && error.contains("UTF-8"),
            "{option}: {error}"
        );
        assert_eq!(fs::read_dir(&odd).unwrap().count(), 1, "{option}");
    };
    let run = ["run", "--", "true"];
    let mut elsewhere = Command::new(env!("CARGO_BIN_EXE_reaper-runtime"));
    elsewhere.env("REAPER_RUNTIME_ROOT", &odd).args(run);
    check(&mut elsewhere, "the state root");
    check(
        rig.command(&run).env("REAPER_OVERLAY_BASE", &odd),
        "the overlay base",
    );
    check(
        rig.command(&["run", "--bundle"]).arg(&odd).arg("web"),
        "--bundle",
    );
    check(rig.command(&["run", "web"]).current_dir(&odd), "--bundle");
    check(rig.command(&run).current_dir(&odd), "the working directory");
    assert!(!rig.root().join("web").exists());
}

#[test]
fn a_database_that_is_a_folder_or_a_dead_link_is_named() {
    type Make = fn(&Path);
    let others: [(Make, &str); 3] = [
        (|path| fs::create_dir(path).unwrap(), "it is a folder"),
        (
            |path| std::os::unix::fs::symlink("nowhere", path).unwrap(),
            "leads nowhere",
        ),
        (
            |path| mkfifo(path, Mode::S_IRWXU).unwrap(),
            "not a regular file",
        ),
    ];
    for (make, reason) in others {
        let rig = Rig::new();
        rig.choose_store("sqlite");
        fs::create_dir(rig.root()).unwrap();
        make(&rig.root().join(".state.db"));
        for args in [&["list"][..], &["run", "--", "true"]] {
            let error = rig.fails(1, args);
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(fs::read_dir(rig.root()).unwrap().count(), 1);
    }
}

//! What an ordinary user gets.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

use crate::{
    hooks::{KINDS, hook},
    rig::{code, is_alive, kill_monitor},
};

const UID: u32 = 43211;

/// An ordinary user with a home, a runtime directory, and a copy of the program, which may lie
/// where only root can read.
struct Someone {
    dir: tempfile::TempDir,
    runtime: tempfile::TempDir,
}

/// Whether this kernel lets a user mount overlays in a user namespace (Linux 5.11), found by doing so
/// without Reaper.
fn users_have_overlays() -> bool {
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(UID), Some(UID)).unwrap();
    let at = dir.path().display();
    let mount = format!(
        "mount -t tmpfs o {at} && mkdir {at}/l {at}/u {at}/w {at}/m && mount -t overlay \
         -o userxattr,lowerdir={at}/l,upperdir={at}/u,workdir={at}/w o {at}/m"
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]);
    let output = command.uid(UID).gid(UID).output().unwrap();
    output.status.success()
}

impl Someone {
    fn new() -> Self {
        // A tmpfs whatever the root is: an overlay cannot hold another one's layers.
        let runtime = tempfile::tempdir_in("/dev/shm").unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let someone = Self { dir, runtime };
        fs::create_dir(someone.home()).unwrap();
        fs::write(someone.home().join("mine"), "one\n").unwrap();
        for path in [
            someone.runtime.path(),
            &someone.home(),
            &someone.home().join("mine"),
        ] {
            chown(path, Some(UID), Some(UID)).unwrap();
        }
        // By a program of its own: a child that another test forks meanwhile would keep a copy's
        // descriptor for writing, and the copy could not be executed (ETXTBSY).
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_reaper-runtime"))
            .arg(someone.program())
            .status();
        assert!(copied.unwrap().success());
        someone
    }

    /// The same where users may mount overlays. An older kernel has to be named as the reason.
    fn with_overlays() -> Option<Self> {
        let someone = Self::new();
        if users_have_overlays() {
            return Some(someone);
        }
        let refused = someone.call(&["run", "--", "true"]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(code(refused.status), 1, "{said}");
        assert!(said.contains("since Linux 5.11"), "{said}");
        None
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("reaper-runtime")
    }

    /// This program as the user.
    fn runs(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).env_clear();
        command
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.home())
            .env("XDG_RUNTIME_DIR", self.runtime.path())
            .current_dir(self.home())
            .uid(UID)
            .gid(UID);
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        self.runs(&self.program(), args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.call(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn sh(&self, options: &[&str], script: &str) -> Output {
        let args = [&["run"], options, &["--", "sh", "-c", script]].concat();
        self.call(&args)
    }

    /// Starts a container that runs until it is killed.
    fn running(&self, id: &str) {
        let args = ["run", "--detach", "--name", id, "--", "sleep", "1000"];
        let mut command = self.runs(&self.program(), &args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
    }

    fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    /// The user removes the overlay `scope`, and then nothing is left.
    fn leaves_nothing(&self, scope: &str) {
        self.ok(&["overlay", "rm", scope]);
        assert_eq!(self.ok(&["list", "--quiet"]), "");
        let overlays = self.runtime.path().join("reaper/overlay");
        for dir in ["scopes", "live/scopes", "live/members", "live/changing"] {
            let left: Vec<_> = fs::read_dir(overlays.join(dir)).unwrap().collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.runtime.path().to_str().unwrap()));
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_command_of_an_ordinary_user_runs_over_an_overlay() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    let script = "id -u; pwd; echo $HOME; cat mine; echo two >mine; echo hi >/etc/reaper-hello; \
                  rm /etc/passwd; cat mine /etc/reaper-hello; echo error >&2; exit 3";
    let output = someone.sh(&[], script);
    let home = someone.home();
    let expected = format!("{UID}\n{0}\n{0}\none\ntwo\nhi\n", home.display());
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(text(&output.stderr), "error\n", "and nothing of ours");
    assert_eq!(code(output.status), 3);
    assert_eq!(fs::read_to_string(home.join("mine")).unwrap(), "one\n");
    assert!(Path::new("/etc/passwd").exists());
    assert!(!Path::new("/etc/reaper-hello").exists());
    // The next one shares it.
    let output = someone.sh(&[], "cat /etc/reaper-hello");
    assert_eq!(text(&output.stdout), "hi\n");
    let expected = format!(
        "D /etc/passwd\nA /etc/reaper-hello\nM {}\n",
        home.join("mine").display()
    );
    assert_eq!(someone.ok(&["overlay", "diff", "node"]), expected);
    someone.leaves_nothing("node");
}

#[test]
fn a_pid_namespace_of_an_ordinary_user_is_refused_by_name() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    let mut command = someone.runs(&someone.program(), &["run", "--", "true"]);
    let refused = command.env("REAPER_PID", "private").output().unwrap();
    let said = text(&refused.stderr);
    assert_eq!(code(refused.status), 1, "{said}");
    assert!(
        said.contains("choose a pid namespace: one of its own is not supported without root"),
        "{said}"
    );
    // It is no matter for one that is called root inside.
    assert_eq!(someone.ok(&["run", "--", "true"]), "");
    someone.leaves_nothing("node");
}

#[test]
fn container_scope_of_user_lives_as_long_as_its_container() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    let mine = someone.home().join("mine").display().to_string();
    let options = ["--keep", "--name", "try1", "--overlay=container"];
    let output = someone.sh(&options, "echo more >>mine; echo new >other");
    assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
    let diff = someone.ok(&["overlay", "diff", "--content", "try1"]);
    assert!(
        diff.contains(&format!("M {mine}\n")) && diff.contains("+more"),
        "{diff}"
    );
    someone.ok(&["overlay", "commit", "--yes", "try1", &mine]);
    assert_eq!(fs::read_to_string(&mine).unwrap(), "one\nmore\n");
    assert!(!someone.home().join("other").exists());
    someone.ok(&["delete", "try1"]);
    assert!(
        someone
            .fails(&["overlay", "diff", "try1"])
            .contains("no scope")
    );
    assert_eq!(someone.ok(&["overlay", "ls", "--json"]).trim(), "[]");
}

#[test]
fn containers_of_a_user_share_a_scope_and_are_managed_as_roots_are() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    someone.running("a");
    someone.running("b");
    assert_eq!(someone.state("a")["status"], "running");
    let ids = someone.ok(&[
        "exec",
        "a",
        "sh",
        "-c",
        "id -u; pwd; echo x >/etc/reaper-shared",
    ]);
    assert_eq!(ids, format!("{UID}\n{}\n", someone.home().display()));
    assert_eq!(
        someone.ok(&["exec", "b", "cat", "/etc/reaper-shared"]),
        "x\n"
    );
    let said = someone.fails(&["overlay", "rm", "node"]);
    assert!(said.contains("in use by a, b"), "{said}");
    let said = someone.fails(&["exec", "--user", "0", "a", "true"]);
    assert!(said.contains("user namespace does not have"), "{said}");
    someone.ok(&["kill", "a", "TERM"]);
    assert_eq!(someone.ok(&["wait", "a"]).trim(), "143");
    assert_eq!(
        someone.ok(&["exec", "b", "cat", "/etc/reaper-shared"]),
        "x\n"
    );
    let after = someone.sh(&[], "cat /etc/reaper-shared");
    assert_eq!(text(&after.stdout), "x\n", "its maker has ended");
    let pid = someone.state("b")["pid"].to_string();
    someone.ok(&["delete", "--force", "b"]);
    assert!(!is_alive(&pid));
    someone.ok(&["delete", "a"]);
    someone.leaves_nothing("node");
}

#[test]
fn a_killed_monitor_leaves_a_scope_that_can_be_used_and_removed() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    someone.running("a");
    let pid = someone.state("a")["pid"].to_string();
    let number = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    let workload = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty());
    let workload = workload.unwrap();
    kill_monitor(&pid);
    assert_eq!(someone.ok(&["wait", "a"]).trim(), "137");
    // Without a cgroup it is told by the kernel, at once but not before we are.
    let mut ended = [PollFd::new(&workload, PollFlags::IN)];
    poll(&mut ended, None).unwrap();
    let output = someone.sh(&[], "echo hi >/etc/reaper-hello; cat /etc/reaper-hello");
    assert_eq!(text(&output.stdout), "hi\n");
    someone.ok(&["delete", "a"]);
    someone.leaves_nothing("node");
}

#[test]
fn volumes_of_users_bundle_are_private_and_mount_points_removed() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    let bundle = someone.home().join("bundle");
    for dir in [bundle.join("rootfs"), someone.home().join("data")] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(someone.home().join("data/file"), "volume\n").unwrap();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": ["sleep", "1000"],
            "cwd": "/",
            "env": ["PATH=/usr/bin:/bin"],
            "user": {"uid": UID, "gid": UID},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/made/data",
                "type": "bind",
                "source": someone.home().join("data"),
                "options": ["rbind", "ro"],
            },
        ],
    });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let args = ["run", "--detach", "--bundle", "bundle", "with"];
    let mut run = someone.runs(&someone.program(), &args);
    run.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(run.status().unwrap().success());
    someone.running("without");
    let read = someone.ok(&["exec", "with", "cat", "/made/data/file"]);
    assert_eq!(read, "volume\n");
    someone.fails(&["exec", "with", "touch", "/made/data/new"]);
    someone.ok(&["exec", "without", "test", "!", "-e", "/made/data/file"]);
    someone.fails(&["exec", "without", "rmdir", "/made/data"]);
    kill_monitor(&someone.state("with")["pid"].to_string());
    assert_eq!(someone.ok(&["wait", "with"]).trim(), "137");
    someone.ok(&["delete", "with"]);
    someone.ok(&["exec", "without", "test", "!", "-e", "/made"]);
    someone.ok(&["delete", "--force", "without"]);
    someone.leaves_nothing("node");
}

#[test]
fn concurrent_rootless_runs_share_one_scope() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    let program = someone.program();
    let start = |number: usize| {
        let script = format!("echo {number} >>/etc/reaper-many");
        let args = ["run", "--", "sh", "-c", &script];
        let mut command = someone.runs(&program, &args);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..12).map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let lines = someone.sh(&[], "sort -n /etc/reaper-many");
    let expected: String = (0..12).map(|number| format!("{number}\n")).collect();
    assert_eq!(text(&lines.stdout), expected);
    someone.leaves_nothing("node");
}

#[test]
fn rootless_run_as_user_0_appears_as_root_without_privileges() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    let script = "id -u; echo $HOME; install -o root -g root -m 755 mine /usr/local/bin/reaper-x && \
                  stat -c %U /usr/local/bin/reaper-x; cat /etc/shadow || echo no";
    let output = someone.sh(&["--user", "0"], script);
    let expected = format!("0\n{}\nroot\nno\n", someone.home().display());
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    assert_eq!(
        someone.ok(&["overlay", "diff", "node"]),
        "A /usr/local/bin/reaper-x\n"
    );
    someone.leaves_nothing("node");
}

#[test]
fn rootless_run_without_overlay_creates_no_overlay_files() {
    let someone = Someone::new();
    let output = someone.sh(&["--overlay=none"], "echo two >mine; id -u; exit 5");
    assert_eq!(text(&output.stdout), format!("{UID}\n"));
    assert_eq!(code(output.status), 5);
    let mine = fs::read_to_string(someone.home().join("mine")).unwrap();
    assert_eq!(mine, "two\n");
    assert!(!someone.runtime.path().join("reaper/overlay").exists());
}

#[test]
fn setting_that_forbids_user_namespaces_is_named_with_remedy() {
    let someone = Someone::new();
    // In a user namespace of the test's own, whose limit is no other's.
    let script = format!(
        "echo 0 >/proc/sys/user/max_user_namespaces && exec {} run --name c -- true",
        someone.program().display()
    );
    let user = UID.to_string();
    let mut command = someone.runs(Path::new("unshare"), &["--user"]);
    command
        .args(["--map-user", &user, "--map-group", &user, "--keep-caps"])
        .args(["sh", "-c", &script]);
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(code(output.status), 1, "{said}");
    assert!(said.contains("user.max_user_namespaces is 0"), "{said}");
    assert!(
        said.contains("sysctl -w user.max_user_namespaces="),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(someone.ok(&["list", "--quiet"]), "");
    let scopes = someone.runtime.path().join("reaper/overlay/scopes");
    assert_eq!(fs::read_dir(scopes).unwrap().count(), 0);
}

#[test]
fn doctor_trial_without_root_uses_users_overlay() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    let findings: Value = serde_json::from_str(&someone.ok(&["doctor", "--json"])).unwrap();
    let mut findings = findings.as_array().unwrap().iter();
    let trial = findings
        .find(|finding| finding["about"] == "trial")
        .unwrap();
    assert_eq!(trial["level"], "good", "{trial}");
    let found = trial["found"].as_str().unwrap();
    assert!(
        found.starts_with("a scope, a container, an exec "),
        "{found}"
    );
    let left: Vec<_> = fs::read_dir(someone.runtime.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn configuration_in_users_home_is_read() {
    let someone = Someone::new();
    let folder = someone.home().join(".config/reaper");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), "[overlay]\nenabled = false\n").unwrap();
    let output = someone.sh(&[], "echo two >mine");
    assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
    let mine = fs::read_to_string(someone.home().join("mine")).unwrap();
    assert_eq!(mine, "two\n");
}

#[test]
fn hooks_of_an_ordinary_users_bundle_are_run_as_that_user() {
    let Some(someone) = Someone::with_overlays() else {
        return;
    };
    let (bundle, data) = (someone.home().join("bundle"), someone.home().join("data"));
    for dir in [bundle.join("rootfs"), data.clone()] {
        fs::create_dir_all(dir).unwrap();
    }
    chown(&data, Some(UID), Some(UID)).unwrap();
    let script = format!("echo $0 $(id -u) >> {}/trace", data.display());
    let noting = |kind: &str| (kind.to_owned(), json!([hook(kind, &script)]));
    let mut hooks: serde_json::Map<_, _> = KINDS.map(noting).into_iter().collect();
    let document = |hooks: &serde_json::Map<String, Value>| {
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": ["true"],
                "cwd": "/",
                "env": ["PATH=/usr/bin:/bin"],
                "user": {"uid": UID, "gid": UID},
            },
            "root": {"path": "rootfs"},
            "mounts": [{
                "destination": data, "type": "bind", "source": data, "options": ["rbind"],
            }],
            "hooks": hooks,
        })
    };
    let config = bundle.join("config.json");
    fs::write(&config, document(&hooks).to_string()).unwrap();
    // Its root would be a copy of the node's mounts.
    let refused = someone.fails(&["run", "--bundle", "bundle", "c"]);
    assert!(
        refused.contains("a createContainer hook needs root"),
        "{refused}"
    );
    assert!(!data.join("trace").exists());
    hooks.remove("createContainer");
    fs::write(&config, document(&hooks).to_string()).unwrap();
    someone.ok(&["run", "--bundle", "bundle", "c"]);
    let trace = fs::read_to_string(data.join("trace")).unwrap();
    let run = KINDS.iter().filter(|kind| hooks.contains_key(**kind));
    let expected: String = run.map(|kind| format!("{kind} {UID}\n")).collect();
    assert_eq!(trace, expected);
    someone.leaves_nothing("node");
}

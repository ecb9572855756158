//! Containers over an overlay, and what `overlay` shows of it and does with it.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use crate::rig::{Rig, code, kill_monitor};

/// Runs a line of shell over an overlay of its own, which is kept as `try1`.
fn try1(rig: &Rig, script: &str) {
    let output = rig.call(&[
        "run",
        "--name",
        "try1",
        "--keep",
        "--overlay=container",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert!(output.status.success(), "{output:?}");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The names of the scopes that there are.
fn scopes(rig: &Rig) -> Vec<String> {
    let list = json(&rig.ok(&["overlay", "ls", "--json"]));
    let list = list.as_array().unwrap();
    let name = |scope: &Value| scope["name"].as_str().unwrap().to_owned();
    list.iter().map(name).collect()
}

#[test]
fn a_create_that_fails_leaves_no_overlay() {
    let rig = Rig::with_overlay();
    let args = ["true"];
    let limit = serde_json::json!({"type": "RLIMIT_NOFILE", "soft": 99_999_999_999_u64, "hard": 99_999_999_999_u64});
    for (name, process) in [
        (
            "cwd",
            serde_json::json!({"cwd": "/etc/passwd", "args": args}),
        ),
        (
            "limit",
            serde_json::json!({"cwd": "/", "args": args, "rlimits": [limit]}),
        ),
        (
            "program",
            serde_json::json!({"cwd": "/", "args": ["/nope"]}),
        ),
    ] {
        let bundle = rig.bundle(name, &process);
        for command in ["run", "create"] {
            let mut call = rig.command(&[command, "--bundle", &bundle, name]);
            let output = call
                .env("REAPER_OVERLAY_SCOPE", "container")
                .output()
                .unwrap();
            // A program that cannot be executed is an error of start.
            assert_eq!(
                output.status.success(),
                (name, command) == ("program", "create")
            );
        }
        rig.call(&["delete", "--force", name]);
        assert_eq!(scopes(&rig), [""; 0], "{name}");
    }
}

#[test]
fn what_a_container_has_closed_to_the_next_ones_user_is_named_with_the_way_out() {
    let rig = Rig::with_overlay();
    for closed in ["/", "/usr/bin"] {
        rig.ok(&["run", "--", "chmod", "700", closed]);
        let user = ["run", "--user", "1234:1234"];
        let program = ["--", "/usr/bin/true"];
        let error = rig.fails(1, &[&user[..], &program[..]].concat());
        let denied = format!("permission denied to user 1234 by {closed} (mode 0700, owner 0:0)");
        assert!(error.contains(&denied), "{error}");
        assert!(error.contains("`overlay diff` shows it"), "{error}");
        let cwd = rig.fails(
            1,
            &[&user[..], &["--cwd", "/usr/bin"], &program[..]].concat(),
        );
        assert!(cwd.contains(&denied["permission ".len()..]), "{cwd}");
        let changes = rig.ok(&["overlay", "diff", "node"]);
        assert!(changes.contains(&format!("P {closed}\n")), "{changes}");
        rig.ok(&["overlay", "reset", "node"]);
        rig.ok(&[&user[..], &program[..]].concat());
    }
}

#[test]
fn who_keeps_a_filesystem_that_was_unmounted_is_said_by_ls_and_doctor() {
    let rig = Rig::with_overlay();
    // Not below /run, which is the machine's own in a view.
    let disk = tempfile::tempdir().unwrap();
    let disk = disk.path().canonicalize().unwrap();
    let program = rig.command(&[]);
    let script = format!(
        "mount -t tmpfs disk {disk} && \"$@\" run --detach --name holder -- sleep 1000 >/dev/null 2>&1 && \
         umount {disk} && \"$@\" overlay ls && \"$@\" overlay ls --json && \
         {{ \"$@\" doctor --no-trial; \"$@\" delete --force holder; \"$@\" overlay ls; }}",
        disk = disk.display()
    );
    let mut call = Command::new("unshare");
    call.args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg("sh")
        .arg(program.get_program())
        .args(program.get_args());
    let output = call.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let held = format!(
        "keeps in use what this machine has unmounted: {}, device 0:",
        disk.display()
    );
    let lines = said.lines().filter(|line| line.starts_with("node"));
    let lines: Vec<_> = lines.map(|line| line.contains(&held)).collect();
    assert_eq!(lines, [true, false], "{said}");
    let member = format!("\"mount_point\": \"{}\"", disk.display());
    assert!(said.contains(&member), "{said}");
    let words: Vec<_> = said.split_whitespace().collect();
    let said = words.join(" ");
    assert!(said.contains(&format!("node {held}")), "{said}");
    assert!(
        said.contains("when the members of node have ended: holder"),
        "{said}"
    );
}

#[test]
fn reaper_inside_reaper_says_why_it_has_no_overlay_and_what_works() {
    let rig = Rig::with_overlay();
    let program = env!("CARGO_BIN_EXE_reaper-runtime");
    let state = rig.path("inner");
    let tmpfs = rig.path("inner-base");
    let script = format!(
        "R='{program} --root {}'; export REAPER_OVERLAY_SCOPE=container
         for base in {} /var/tmp/inner; do REAPER_OVERLAY_BASE=$base $R run -- true && exit 9; done
         $R run --overlay=none -- echo inside",
        state.display(),
        tmpfs.display()
    );
    let output = rig.call(&["run", "--", "sh", "-c", &script]);
    let _ = nix::mount::umount2(&tmpfs, nix::mount::MntFlags::MNT_DETACH);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "inside\n",
        "{output:?}"
    );
    let said = String::from_utf8(output.stderr).unwrap();
    let reasons = said
        .lines()
        .filter(|line| line.contains("whose mounts are locked"));
    let reasons: Vec<_> = reasons.collect();
    assert_eq!(reasons.len(), 2, "{said}");
    assert!(
        reasons.iter().all(|line| line.contains("--overlay=none")),
        "{said}"
    );
}

#[test]
fn a_base_that_can_hold_no_upper_layer_is_named_to_root_too() {
    let rig = Rig::with_overlay();
    let layers = ["lower", "upper", "work", "over"].map(|name| rig.path(name));
    layers.iter().for_each(|path| fs::create_dir(path).unwrap());
    let [lower, upper, work, over] = layers.map(|path| path.display().to_string());
    let script =
        format!("mount -t overlay -o lowerdir={lower},upperdir={upper},workdir={work} over {over}");
    for replaced in ["", "/etc/none"] {
        let mut call = rig.command_where(&script, &["run", "--", "true"]);
        call.env("REAPER_OVERLAY_BASE", format!("{over}/base"));
        call.env("REAPER_OVERLAY_MASKS_REPLACE", replaced);
        let output = call.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("can hold no upper layer"), "{said}");
        assert!(said.contains("overlay.base"), "{said}");
    }
}

#[test]
fn a_create_that_is_killed_leaves_no_overlay_once_it_is_deleted() {
    let rig = Rig::with_overlay();
    let bundle = rig.bundle(
        "b",
        &serde_json::json!({"cwd": "/", "args": ["sleep", "100"]}),
    );
    for (number, signal) in [Signal::SIGKILL, Signal::SIGTERM]
        .into_iter()
        .cycle()
        .take(20)
        .enumerate()
    {
        let id = format!("c{number}");
        let mut call = rig.command(&["create", "--bundle", &bundle, &id]);
        let mut call = call
            .env("REAPER_OVERLAY_SCOPE", "container")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Somewhere on its way, which begins when the container's folder is there.
        let folder = rig.root().join(&id);
        while !folder.exists() && call.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2) * number as u32 {
            std::hint::spin_loop();
        }
        let _ = nix::sys::signal::kill(Pid::from_raw(call.id() as i32), signal);
        call.wait().unwrap();
        // The monitor, which has lost its client, may still be at it.
        rig.ok(&["delete", "--force", &id]);
        // One that had just begun removes what it has made by itself.
        while folder.exists() {
            rig.ok(&["delete", "--force", &id]);
            let left = || fs::read_dir(&folder).map(Iterator::collect::<Vec<_>>);
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", left());
        }
        assert_eq!(scopes(&rig), [""; 0], "after {number} times 2 ms");
    }
}

/// The first example of the section `title` of the README: a script, and what it prints.
fn example(title: &str) -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(path).unwrap();
    let section = readme.split_once(&format!("## {title}\n")).unwrap().1;
    let example = section.split_once("```console\n").unwrap().1;
    let example = example.split_once("```").unwrap().0;
    let (mut script, mut output) = (String::new(), String::new());
    for line in example.lines() {
        match line.strip_prefix("# ") {
            Some(command) => script.push_str(&format!("{command}\n")),
            None => output.push_str(&format!("{line}\n")),
        }
    }
    (script, output)
}

/// Removes what a demonstration leaves on this machine, if it fails.
struct Cleared(&'static Path);

impl Drop for Cleared {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[test]
fn the_demo_works_as_it_is_written() {
    let rig = Rig::with_overlay();
    let hello = Path::new("/etc/hello");
    assert!(!hello.exists());
    let _cleared = Cleared(hello);
    let (script, expected) = example("A demo");
    let programs = Path::new(env!("CARGO_BIN_EXE_reaper-runtime")).parent();
    let path = format!(
        "{}:{}",
        programs.unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env("REAPER_RUNTIME_ROOT", rig.root())
        .env("REAPER_OVERLAY_BASE", rig.path("base"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert!(!hello.exists());
    assert_eq!(scopes(&rig), Vec::<String>::new());
}

#[test]
fn exit_codes_and_streams_pass() {
    let rig = Rig::with_overlay();
    for (script, expected) in [("exit 0", 0), ("exit 77", 77), ("kill -TERM $$", 143)] {
        let script = format!("echo out; echo err >&2; {script}");
        let output = rig.call(&["run", "--", "sh", "-c", &script]);
        assert_eq!(code(output.status), expected);
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }
}

#[test]
fn runs_share_only_the_node_scope_by_default() {
    let rig = Rig::with_overlay();
    let script = "echo shared > /etc/reaper-cli-test";
    rig.ok(&["run", "--", "sh", "-c", script]);
    assert!(!Path::new("/etc/reaper-cli-test").exists());
    let read = rig.ok(&["run", "--", "cat", "/etc/reaper-cli-test"]);
    assert_eq!(read, "shared\n");
    assert_eq!(scopes(&rig), ["node"]);
    assert_eq!(
        rig.ok(&["overlay", "diff", "node"]),
        "A /etc/reaper-cli-test\n"
    );
    rig.ok(&["overlay", "rm", "node"]);
    assert_eq!(scopes(&rig), Vec::<String>::new());
}

#[test]
fn container_scope_is_removed_with_its_container() {
    let rig = Rig::with_overlay();
    rig.ok(&[
        "run",
        "--overlay=container",
        "--",
        "touch",
        "/etc/reaper-cli-test",
    ]);
    assert_eq!(scopes(&rig), Vec::<String>::new());
    try1(&rig, "touch /etc/reaper-cli-test");
    let [scope] = scopes(&rig).try_into().unwrap();
    assert!(scope.starts_with("container-try1~"), "{scope}");
    rig.ok(&["delete", "try1"]);
    assert_eq!(scopes(&rig), Vec::<String>::new());
    // One that was removed before is no obstacle.
    try1(&rig, "true");
    rig.ok(&["overlay", "rm", "try1"]);
    rig.ok(&["delete", "try1"]);
}

#[test]
fn processes_over_an_overlay_have_their_directory_user_and_terminal() {
    let rig = Rig::with_overlay();
    let here = tempfile::tempdir().unwrap();
    fs::set_permissions(here.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let cwd = here.path().to_str().unwrap();
    let script = "pwd; id -u; touch made";
    let text = rig.ok(&[
        "run", "--cwd", cwd, "--user", "12345", "--", "sh", "-c", script,
    ]);
    assert_eq!(text, format!("{cwd}\n12345\n"));
    assert!(!here.path().join("made").exists());
    // A directory that this machine has not is made in the overlay.
    let none = "/reaper-cli-test/none";
    assert_eq!(
        rig.ok(&["run", "--cwd", none, "--", "pwd"]),
        format!("{none}\n")
    );
    assert!(!Path::new(none).exists());

    rig.detached("c", &["sleep", "1000"]);
    let text = rig.ok(&[
        "exec",
        "--tty",
        "--user",
        "12345",
        "--cwd",
        cwd,
        "c",
        "sh",
        "-c",
        "pwd; id -u; test -t 0 && tty; ls made",
    ]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], [cwd, "12345"]);
    assert!(lines[2].starts_with("/dev/pts/"), "{text}");
    assert_eq!(lines[3], "made");
}

#[test]
fn overlay_ls_shows_scopes_sizes_and_members() {
    let rig = Rig::with_overlay();
    assert_eq!(rig.ok(&["overlay", "ls", "--json"]), "[]\n");
    assert_eq!(rig.ok(&["overlay", "du"]), "");
    rig.detached("c", &["sleep", "1000"]);
    let script = "head -c 100000 /dev/zero > /etc/reaper-cli-test";
    rig.ok(&["exec", "c", "sh", "-c", script]);
    let list = json(&rig.ok(&["overlay", "ls", "--json"]));
    assert_eq!(list[0]["name"], "node");
    // A container of another root than the usual one has that in its name.
    let member = list[0]["members"][0].as_str().unwrap();
    assert!(member.starts_with("c~"), "{list}");
    assert!(list[0]["bytes"].as_u64().unwrap() >= 100_000, "{list}");
    assert!(
        list[0]["created"].as_str().unwrap().ends_with('Z'),
        "{list}"
    );
    let table = rig.ok(&["overlay", "ls"]);
    let fields: Vec<Vec<_>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(fields[0][..4], ["NAME", "SIZE", "AGE", "MEMBERS"]);
    assert_eq!(
        (fields[1][0], fields[1][2], fields[1][4]),
        ("node", "KiB", member),
        "{table}"
    );
    let used = json(&rig.ok(&["overlay", "du", "--json", "node"]));
    assert_eq!(
        (&used[0]["name"], &used[0]["bytes"]),
        (&"node".into(), &list[0]["bytes"])
    );
    assert!(rig.ok(&["overlay", "du"]).ends_with(" files\tnode\n"));
}

#[test]
fn ls_and_du_show_how_much_of_its_limit_a_scope_holds() {
    let rig = Rig::with_overlay();
    let script = "LC_ALL=C cat /dev/zero >/root/fill; echo code $?";
    let args = [
        "run",
        "--name",
        "full",
        "--keep",
        "--overlay=container",
        "--",
    ];
    let mut call = rig.command(&args);
    call.args(["sh", "-c", script]);
    let output = call
        .env("REAPER_OVERLAY_SIZE_PER_SCOPE", "2MiB")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(output.stdout, b"code 1\n");
    rig.ok(&["run", "--", "true"]);

    let list = json(&rig.ok(&["overlay", "ls", "--json"]));
    let used = json(&rig.ok(&["overlay", "du", "--json"]));
    for listed in [list, used] {
        let limits = listed.as_array().unwrap().iter();
        let limits: Vec<_> = limits.map(|scope| scope["limit"].as_u64()).collect();
        assert_eq!(limits, [Some(2 << 20), None], "{listed}");
    }
    for command in ["ls", "du"] {
        let shown = rig.ok(&["overlay", command]);
        let line = |name| shown.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("container-full").contains(" of 2.0 MiB"), "{shown}");
        assert!(!line("node").contains(" of "), "{shown}");
    }
    rig.ok(&["delete", "full"]);
    assert_eq!(scopes(&rig), ["node"]);
}

#[test]
fn overlay_diff_lists_paths_and_changed_lines() {
    let rig = Rig::with_overlay();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for name in ["changed", "gone", "mode", "type"] {
        fs::write(at(name), "one\ntwo\n").unwrap();
    }
    let script = format!(
        "cd {}; echo three >> changed; rm gone; chmod 600 mode; rm type; mkdir type; \
         echo new > \"$(printf 'odd\\nname')\"",
        dir.path().display()
    );
    try1(&rig, &script);
    let [changed, gone, mode, odd, kind] =
        ["changed", "gone", "mode", "odd\\nname", "type"].map(at);
    let expected = format!("M {changed}\nD {gone}\nP {mode}\nA {odd}\nT {kind}\n");
    assert_eq!(rig.ok(&["overlay", "diff", "try1"]), expected);
    assert_eq!(rig.ok(&["overlay", "diff", "container-try1"]), expected);

    let text = rig.ok(&["overlay", "diff", "--content", "try1"]);
    let content = format!(
        "M {changed}\n--- a{changed}\n+++ b{changed}\n@@ -1,2 +1,3 @@\n one\n two\n+three\n"
    );
    assert!(text.starts_with(&content), "{text}");

    let changes = json(&rig.ok(&["overlay", "diff", "--json", "try1"]));
    assert_eq!(changes[0]["path"], changed.as_str());
    assert_eq!(changes[0]["kind"], "modified");
    assert_eq!(changes[2]["after"]["mode"], 0o600);
    assert_eq!(changes[3]["path"], at("odd\nname"));
    assert_eq!(changes[4]["after"]["kind"], "directory");
    let changes = json(&rig.ok(&["overlay", "diff", "--json", "--content", "try1"]));
    let content = changes[0]["content"].as_str().unwrap();
    assert!(content.contains("+three"), "{content}");
}

#[test]
fn overlay_export_writes_same_archive_to_file_and_stdout() {
    let rig = Rig::with_overlay();
    try1(&rig, "echo hi > /etc/reaper-cli-test; rm /etc/passwd");
    let file = rig.path("try1.tar").to_str().unwrap().to_owned();
    rig.ok(&["overlay", "export", "--output", &file, "try1"]);
    let output = rig.call(&["overlay", "export", "try1"]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout == fs::read(&file).unwrap(), "the same");
    let names = Command::new("tar").args(["-tf", &file]).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    for name in ["etc/reaper-cli-test\n", "etc/.wh.passwd\n"] {
        assert!(names.contains(name), "{names}");
    }
    rig.fails(1, &["overlay", "export", "--output", &file, "other"]);
    assert!(
        fs::metadata(&file).unwrap().len() > 0,
        "a mistake costs no file"
    );
}

#[test]
fn chosen_changes_are_made_on_this_machine_when_confirmed() {
    let rig = Rig::with_overlay();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("old"), "old").unwrap();
    let path = dir.path().to_str().unwrap();
    let script = format!("cd {path}; mkdir -p a/b; echo 1 > a/b/c; echo 2 > other; rm old");
    try1(&rig, &script);
    let chosen = format!("{path}/a");
    let expected = format!("A {path}/a\nA {path}/a/b\nA {path}/a/b/c\n");
    let dry = rig.call(&["overlay", "commit", "try1", &chosen]);
    assert_eq!(String::from_utf8_lossy(&dry.stdout), expected);
    assert!(
        String::from_utf8_lossy(&dry.stderr).contains("--yes"),
        "{dry:?}"
    );
    assert!(!dir.path().join("a").exists());

    let done = rig.ok(&["overlay", "commit", "--yes", "try1", &chosen]);
    assert_eq!(done, expected);
    assert_eq!(fs::read(dir.path().join("a/b/c")).unwrap(), b"1\n");
    assert!(!dir.path().join("other").exists() && dir.path().join("old").exists());
    let error = rig.fails(1, &["overlay", "commit", "--yes", "try1", &chosen]);
    assert!(error.contains("nothing changed there"), "{error}");
    rig.ok(&["overlay", "commit", "--yes", "try1", path]);
    assert!(dir.path().join("other").exists() && !dir.path().join("old").exists());
}

#[test]
fn reset_and_rm_of_scope_in_use_are_refused() {
    let rig = Rig::with_overlay();
    rig.detached("user", &["sleep", "1000"]);
    rig.ok(&["exec", "user", "touch", "/etc/reaper-cli-test"]);
    for command in ["reset", "rm"] {
        let error = rig.fails(1, &["overlay", command, "node"]);
        assert!(error.contains("node is in use by user"), "{error}");
    }
    assert_eq!(
        rig.ok(&["overlay", "diff", "node"]),
        "A /etc/reaper-cli-test\n"
    );
    rig.ok(&["delete", "--force", "user"]);
    rig.ok(&["overlay", "reset", "node"]);
    assert_eq!(rig.ok(&["overlay", "diff", "node"]), "");
    assert_eq!(scopes(&rig), ["node"]);
    rig.ok(&["overlay", "rm", "node"]);
}

#[test]
fn overlay_commands_refuse_unknown_scope() {
    let rig = Rig::with_overlay();
    for command in ["diff", "du", "export", "reset", "rm"] {
        let error = rig.fails(1, &["overlay", command, "nobody"]);
        assert!(error.contains("no scope container-nobody"), "{error}");
        assert!(error.contains("`reaper-runtime overlay ls`"), "{error}");
    }
    let output = rig.call(&["overlay", "rm", "../../etc"]);
    assert_eq!(code(output.status), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("../../etc"));
}

#[test]
fn overlay_diff_as_other_user_names_uid_and_need_for_root() {
    let rig = Rig::with_overlay();
    try1(&rig, "true");
    // A place from which everybody may run it.
    let program = rig.path("program");
    // By a program of its own, or a child of another test could keep it from being executed.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_reaper-runtime"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    fs::set_permissions(rig.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    let own = rig.path("own");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(65534), Some(65534)).unwrap();
    let output = Command::new(program)
        .arg("--config")
        .arg(rig.path("config.toml"))
        .args(["overlay", "diff", "try1"])
        .env("XDG_RUNTIME_DIR", own)
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(code(output.status), 1, "{error}");
    assert!(
        error.contains("this is uid 65534") && error.contains("root"),
        "{error}"
    );
}

#[test]
fn keep_count_limits_unused_scopes() {
    let rig = Rig::with_overlay();
    let run = |name: &str, keep: &str| {
        let scope = format!("--overlay=group:{name}");
        let mut run = rig.command(&["run", &scope, "--", "touch", "/mark"]);
        let output = run.env("REAPER_OVERLAY_KEEP_COUNT", keep).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run("first", "2");
    run("second", "2");
    assert_eq!(scopes(&rig), ["group-first", "group-second"]);
    run("third", "1");
    // Nobody waits for it, so neither did the call.
    let patience = Instant::now() + Duration::from_secs(30);
    while scopes(&rig) != ["group-third"] {
        assert!(Instant::now() < patience, "{:?}", scopes(&rig));
        std::thread::yield_now();
    }
}

#[test]
fn keep_count_applies_after_monitor_is_killed() {
    let rig = Rig::with_overlay();
    let run = |options: &[&str], command: &[&str]| {
        let args = [&["run"], options, &["--"], command].concat();
        let mut run = rig.command(&args);
        let run = run.env("REAPER_OVERLAY_KEEP_COUNT", "1");
        assert!(run.status().unwrap().success(), "{args:?}");
    };
    run(&["--overlay=group:first"], &["true"]);
    let detached = ["--overlay=group:second", "--detach", "--name", "lost"];
    run(&detached, &["sleep", "60"]);
    kill_monitor(&rig.state("lost")["pid"].to_string());
    rig.ok(&["delete", "--force", "lost"]);
    let patience = Instant::now() + Duration::from_secs(30);
    while scopes(&rig) != ["group-second"] {
        assert!(Instant::now() < patience, "{:?}", scopes(&rig));
        std::thread::yield_now();
    }
}

#[test]
fn remove_with_last_removes_scope_after_last_member() {
    let rig = Rig::with_overlay();
    let mut run = rig.command(&["run", "--", "touch", "/mark"]);
    let run = run.env("REAPER_OVERLAY_REMOVE_WITH_LAST", "true");
    assert!(run.status().unwrap().success());
    assert_eq!(scopes(&rig), Vec::<String>::new());
}

#[test]
fn view_warnings_go_to_log_and_not_to_output() {
    let rig = Rig::with_overlay();
    let (log, missing) = (rig.path("log"), rig.path("missing"));
    let run = |log: Option<&Path>| {
        let mut run = rig.command(&["run", "--", "echo", "hello"]);
        run.env("REAPER_OVERLAY_HOST_PATHS", &missing);
        if let Some(log) = log {
            run.env("REAPER_RUNTIME_LOG", log);
        }
        run.output().unwrap()
    };
    for output in [run(None), run(Some(&log))] {
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b"hello\n"[..], &b""[..])
        );
    }
    let log = fs::read_to_string(log).unwrap();
    let line = format!("there is no {}", missing.display());
    assert!(log.contains(&line), "{log}");
}

#[test]
fn container_name_selects_its_scope_except_for_rm_and_reset() {
    let rig = Rig::with_overlay();
    rig.quietly(&[
        "run",
        "--keep",
        "--name",
        "web",
        "--overlay=group:g",
        "--",
        "touch",
        "/mark",
    ]);
    assert_eq!(rig.ok(&["overlay", "diff", "web"]), "A /mark\n");
    assert!(rig.ok(&["overlay", "du", "web"]).contains("group-g"));
    for command in ["rm", "reset"] {
        let error = rig.fails(1, &["overlay", command, "web"]);
        assert!(error.contains("shares the overlay group-g"), "{error}");
    }
    let state = rig.state("web");
    assert_eq!(state["annotations"], serde_json::json!({}));
    rig.ok(&["delete", "web"]);
    rig.ok(&["overlay", "rm", "group-g"]);
}

#[test]
fn containers_of_same_name_in_two_state_roots_have_separate_scopes() {
    let rig = Rig::with_overlay();
    let inner = |args: &[&str]| {
        let mut all = vec!["--namespace", "other"];
        all.extend(args);
        rig.ok(&all)
    };
    try1(&rig, "touch /here");
    inner(&[
        "run",
        "--name",
        "try1",
        "--keep",
        "--overlay=container",
        "--",
        "touch",
        "/there",
    ]);
    assert_eq!(rig.ok(&["overlay", "diff", "try1"]), "A /here\n");
    assert_eq!(inner(&["overlay", "diff", "try1"]), "A /there\n");
    rig.ok(&["delete", "try1"]);
    assert_eq!(inner(&["overlay", "diff", "try1"]), "A /there\n");
    inner(&["delete", "try1"]);
    assert_eq!(scopes(&rig), Vec::<String>::new());
    fs::remove_dir_all(rig.root()).unwrap();
}

#[test]
fn a_scope_that_cannot_be_read_is_named_and_hides_no_other() {
    let rig = Rig::with_overlay();
    try1(&rig, "touch /etc/reaper-cli-test");
    rig.ok(&["run", "--overlay=group:broken", "--", "true"]);
    fs::write(rig.path("base/scopes/group-broken/layers.json"), "{").unwrap();
    for command in [&["overlay", "ls"][..], &["overlay", "du"]] {
        let output = rig.call(command);
        assert_eq!(code(output.status), 1, "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("container-try1"), "{text}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.contains("overlay group-broken: ") && error.contains("1 of 2"),
            "{error}"
        );
    }
    let found = rig.call(&["doctor"]).stdout;
    let found = String::from_utf8(found).unwrap();
    assert!(
        found.contains("group-broken: ") && found.contains("2 scopes"),
        "{found}"
    );
    let pruned = rig.call(&["prune", "--overlays", "0s"]);
    assert!(pruned.status.success(), "{pruned:?}");
    let error = String::from_utf8(pruned.stderr).unwrap();
    assert!(error.contains("overlay group-broken: "), "{error}");
    fs::remove_dir_all(rig.path("base/scopes/group-broken")).unwrap();
    assert_eq!(scopes(&rig), Vec::<String>::new());
}

#[test]
fn scopes_are_named_as_they_are_listed_or_configured() {
    let rig = Rig::with_overlay();
    for name in ["one", "two"] {
        let scope = format!("--overlay=group:{name}");
        rig.ok(&["run", &scope, "--", "touch", "/mark"]);
    }
    assert_eq!(rig.ok(&["overlay", "diff", "group:one"]), "A /mark\n");
    assert!(
        rig.ok(&["overlay", "du", "group:one"])
            .contains("group-one")
    );
    let tar = rig.call(&["overlay", "export", "group:one"]);
    assert!(tar.status.success() && !tar.stdout.is_empty(), "{tar:?}");
    rig.call(&["overlay", "commit", "group:one", "/mark"]);
    rig.ok(&["overlay", "reset", "group:one"]);
    assert_eq!(rig.ok(&["overlay", "diff", "group-one"]), "");
    // One that does not exist keeps no other.
    let output = rig.call(&["overlay", "rm", "group:one", "group:none", "group-two"]);
    assert_eq!(code(output.status), 1, "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("there is no scope group-none"), "{error}");
    assert_eq!(scopes(&rig), Vec::<String>::new());
}

/// Puts something into the trash, as a process leaves it that is killed while it removes a scope.
fn leave_trash(rig: &Rig) {
    let upper = rig.path("base/trash/1.1/0/upper");
    fs::create_dir_all(&upper).unwrap();
    fs::write(upper.join("file"), vec![1; 1 << 20]).unwrap();
}

#[test]
fn what_a_killed_removal_left_is_shown_and_goes_with_each_way_that_clears_up() {
    let rig = Rig::with_overlay();
    rig.ok(&["run", "--", "true"]);
    leave_trash(&rig);
    let listed = rig.call(&["overlay", "ls"]);
    assert!(listed.status.success(), "{listed:?}");
    let error = String::from_utf8(listed.stderr).unwrap();
    assert!(
        error.contains("1.0 MiB of removed overlays") && error.contains("prune"),
        "{error}"
    );
    let found = String::from_utf8(rig.call(&["doctor"]).stdout).unwrap();
    assert!(found.contains("1.0 MiB of removed overlays"), "{found}");
    let dry = rig.ok(&["prune", "--dry-run"]);
    assert_eq!(dry, "1.0 MiB of removed overlays\n");
    for clear in [
        &["prune"][..],
        &["overlay", "reset", "node"],
        &["run", "--overlay=container", "--", "true"],
        &["overlay", "rm", "node"],
    ] {
        leave_trash(&rig);
        rig.ok(clear);
        let left: Vec<_> = fs::read_dir(rig.path("base/trash")).unwrap().collect();
        assert!(left.is_empty(), "{clear:?}: {left:?}");
    }
}

#[test]
fn an_archive_that_lacks_something_says_so_and_fails() {
    let rig = Rig::with_overlay();
    try1(
        &rig,
        "mkdir /opt/reaper-cli-test; cd /opt/reaper-cli-test; touch .wh.odd good",
    );
    let file = rig.path("try1.tar").to_str().unwrap().to_owned();
    let output = rig.call(&["overlay", "export", "--output", &file, "try1"]);
    assert_eq!(code(output.status), 1, "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("/opt/reaper-cli-test/.wh.odd is not in the archive"),
        "{error}"
    );
    let names = Command::new("tar").args(["-tf", &file]).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    assert!(
        names.contains("opt/reaper-cli-test/good") && !names.contains("odd"),
        "{names}"
    );
}

#[test]
fn df_shows_a_volume_once_and_by_its_own_name() {
    let rig = Rig::with_overlay();
    let fields = serde_json::json!({ "mounts": [
        { "destination": "/cache", "source": "memory", "type": "tmpfs", "options": ["size=1m"] }
    ]});
    let bundle = rig.bundle_with("b", &crate::rig::shell("df"), &fields);
    let said = rig.ok(&["run", "--bundle", &bundle, "c"]);
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.ends_with(" /cache"))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].starts_with("memory "), "{said}");
}

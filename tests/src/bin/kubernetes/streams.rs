//! What `kubectl` carries between a person and a container.

use std::{fs, io::Read as _, process::Stdio};

use reaper_tests::{
    faults::process_named,
    kubernetes::{Space, eventually, pod},
    pty::Terminal,
};
use serde_json::json;

crate::tests!(
    logs_are_shown_followed_and_cut,
    exec_passes_input_outputs_and_status,
    exec_on_a_terminal_has_a_size_and_job_control,
    attach_reaches_the_input_and_the_output,
    files_are_copied_both_ways,
    port_of_a_pod_is_forwarded,
);

fn logs_are_shown_followed_and_cut(space: &Space<'_>) {
    let go = space.folder().join("go");
    let script = format!(
        "echo one; echo two >&2; until test -e {}; do sleep 0.1; done; echo three; exit 0",
        go.display()
    );
    space.run(&pod("talks", &script));
    let mut follower = space
        .kubectl_command(&["logs", "-f", "talks"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start kubectl logs");
    let mut output = follower.stdout.take().expect("its output");
    let mut seen = Vec::new();
    while seen.len() < "one\ntwo\n".len() {
        let mut buffer = [0; 64];
        let read = output.read(&mut buffer).expect("read the log");
        assert!(read > 0, "the log ended before its pod");
        seen.extend_from_slice(&buffer[..read]);
    }
    fs::write(go, "").expect("let it go on");
    output.read_to_end(&mut seen).expect("read the rest");
    assert!(follower.wait().expect("wait for kubectl").success());
    let mut lines: Vec<&str> = std::str::from_utf8(&seen).expect("text").lines().collect();
    assert_eq!(lines.pop(), Some("three"));
    // They came by two streams.
    lines.sort_unstable();
    assert_eq!(lines, ["one", "two"]);
    space.ended("talks");
    assert_eq!(
        space
            .kubectl(&["logs", "talks", "--tail=1"])
            .assert_success(),
        "three\n"
    );
    let stamped = space
        .kubectl(&["logs", "talks", "--timestamps", "--tail=1"])
        .assert_success();
    assert!(stamped.ends_with("Z three\n"), "{stamped}");
}

fn exec_passes_input_outputs_and_status(space: &Space<'_>) {
    space.run(&pod("rests", "exec sleep 1741"));
    let args = [
        "exec",
        "-i",
        "rests",
        "--",
        "/bin/sh",
        "-c",
        "cat; echo trouble >&2; exit 42",
    ];
    let output = space.kubectl_fed(&args, "some input\n");
    assert_eq!(output.stdout, "some input\n");
    assert!(output.stderr.contains("trouble\n"), "{output:?}");
    assert_eq!(output.code, 42, "{output:?}");
    let refused = space.kubectl(&["exec", "rests", "--", "/no/such/program"]);
    assert_ne!(refused.code, 0);
    assert!(refused.text().contains("/no/such/program"), "{refused:?}");
    // More than any pipe holds, both ways.
    let much: String = (0..100_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    let output = space.kubectl_fed(&["exec", "-i", "rests", "--", "/bin/cat"], &much);
    assert!(
        output.stdout == much,
        "{} bytes came back of {}",
        output.stdout.len(),
        much.len()
    );
}

fn exec_on_a_terminal_has_a_size_and_job_control(space: &Space<'_>) {
    space.run(&pod("rests", "exec sleep 1742"));
    let shell = "PS1='rea''dy> ' exec sh -i";
    let mut terminal = Terminal::spawn(
        &space.kubectl_command(&["exec", "-it", "rests", "--", "/bin/sh", "-c", shell]),
    );
    terminal.coax("\n", "ready> ");
    terminal.resize(101, 31);
    terminal.send("until stty size | grep '31 1''01'; do sleep 0.1; done\n");
    terminal.expect("31 101");
    terminal.send("sleep 1743\n");
    process_named("sleep 1743");
    terminal.send("\x03");
    terminal.send("echo after $?; exit 23\n");
    terminal.expect("after 130");
    assert_eq!(terminal.finish().code, 23);
}

fn attach_reaches_the_input_and_the_output(space: &Space<'_>) {
    let mut reader = pod(
        "reader",
        "while read -r line; do echo \"got $line\"; test \"$line\" != end || exit 5; done",
    );
    reader["spec"]["containers"][0]["stdin"] = true.into();
    space.run(&reader);
    let output = space.kubectl_fed(&["attach", "-i", "reader"], "word\n");
    assert!(
        output.stdout.is_empty() || output.stdout == "got word\n",
        "{output:?}"
    );
    eventually("the first word is logged", || {
        (space.log("reader") == "got word\n").then_some(())
    });
    space.kubectl_fed(&["attach", "-i", "reader"], "end\n");
    let reader = space.ended("reader");
    assert_eq!(reaper_tests::kubernetes::end_of(&reader).0, 5);

    let mut shell = pod("shell", "PS1='rea''dy> ' exec sh -i");
    shell["spec"]["containers"][0]["stdin"] = true.into();
    shell["spec"]["containers"][0]["tty"] = true.into();
    space.run(&shell);
    let mut terminal = Terminal::spawn(&space.kubectl_command(&["attach", "-it", "shell"]));
    terminal.coax("\n", "ready> ");
    terminal.send("tty; exit 24\n");
    terminal.expect("/dev/pts/");
    terminal.finish();
    assert_eq!(
        reaper_tests::kubernetes::end_of(&space.ended("shell")).0,
        24
    );
}

fn files_are_copied_both_ways(space: &Space<'_>) {
    let folder = space.folder();
    let (there, back) = (folder.join("there"), folder.join("back"));
    let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&there, &content).expect("write a file");
    let mut pod = pod("keeps", "exec sleep 1744");
    pod["spec"]["volumes"] = json!([{ "name": "own", "emptyDir": {} }]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "own", "mountPath": "/srv/own" }]);
    space.run(&pod);
    let (there, name) = (
        there.to_str().expect("UTF-8"),
        back.to_str().expect("UTF-8"),
    );
    space
        .kubectl(&["cp", there, "keeps:/srv/own/copy"])
        .assert_success();
    space
        .kubectl(&["cp", "keeps:/srv/own/copy", name])
        .assert_success();
    assert!(
        fs::read(back).expect("the copy of the copy") == content,
        "it came back changed"
    );
}

fn port_of_a_pod_is_forwarded(space: &Space<'_>) {
    let script = "mkdir -p /tmp/pages; echo forwarded >/tmp/pages/page; exec busybox httpd -f -p 8080 -h /tmp/pages";
    space.run(&pod("serves", script));
    let mut forwarder = space
        .kubectl_command(&["port-forward", "pod/serves", "18080:8080"])
        .stdout(Stdio::null())
        .spawn()
        .expect("start kubectl port-forward");
    let page = eventually("the page is served", || {
        let output = reaper_tests::ctr::Output::of(std::process::Command::new("busybox").args([
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1:18080/page",
        ]));
        (output.code == 0).then_some(output.stdout)
    });
    forwarder.kill().expect("end kubectl port-forward");
    forwarder.wait().expect("wait for kubectl");
    assert_eq!(page, "forwarded\n");
}

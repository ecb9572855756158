//! What a workload has of containerd: nothing.

use std::{fs, sync::Mutex};

use reaper_tests::{Options, containerd::is_yardstick, on_each_with};

/// Says all that a process could have of its caller, a line each.
const TELL: &str = "env | sort | grep -v -e ^_= -e ^HOSTNAME=; echo files $(ls /proc/self/fd); \
    echo cwd $(pwd); echo umask $(umask); \
    grep -E '^(Sig(Blk|Ign)|Cpus_allowed:)' /proc/self/status; \
    set -- $(cut -d')' -f2 /proc/self/stat); echo tty $5 nice ${17} policy ${39}; \
    echo personality $(cat /proc/self/personality)";

#[test]
fn a_workload_has_nothing_of_a_containerd_that_was_started_oddly() {
    let odd = "umask 077; trap '' HUP QUIT USR2; exec 9</etc/passwd; cd /usr; \
        exec nice -n 5 taskset -c 0 chrt --batch 0 setarch --addr-no-randomize \"$0\" \"$@\"";
    let said = Mutex::new(Vec::new());
    let odd = Options::default()
        .env("SECRET", "of containerd")
        .env("LISTEN_FDS", "1")
        .run_by(&["sh", "-c", odd]);
    for options in [Options::default(), odd] {
        on_each_with(&options, |node| {
            let output = node.ctr_run("told", &["/bin/sh", "-c", TELL]);
            let text = output.assert_success();
            said.lock().unwrap().push((node.suite().to_string(), text));
        });
    }
    let said = said.into_inner().unwrap();
    let (clean, of_odd) = said.split_at(said.len() / 2);
    assert!(!clean.is_empty());
    assert_eq!(clean, of_odd);
}

#[test]
fn the_runtime_that_a_handlers_options_name_makes_the_container() {
    if is_yardstick() {
        return;
    }
    on_each_with(&Options::default(), |node| {
        let config = node.work().join("handler.toml");
        fs::write(&config, "runtime_path = \"/no/such/runtime\"\n").expect("write options");
        let config = config.to_str().expect("a path in UTF-8");
        let options = ["--rm", "--runtime-config-path", config];
        let output = node.ctr_run_with("driven", &options, &["/bin/echo", "on the node"]);
        assert_ne!(output.code, 0, "{output:?}");
        assert!(output.stderr.contains("/no/such/runtime"), "{output:?}");
    });
}

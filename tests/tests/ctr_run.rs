//! `ctr run`: codes, output and events, of one command and of many.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use reaper_tests::on_each;

const LIFE: [&str; 4] = [
    "/tasks/create",
    "/tasks/start",
    "/tasks/exit",
    "/tasks/delete",
];

#[test]
fn ctr_run_returns_output_of_echo() {
    on_each(|node| {
        let events = node.events();
        let output = node.ctr_run("echo", &["/bin/echo", "hello", "node"]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (0, "hello node\n"),
            "{output:?}"
        );
        assert_eq!(output.stderr, "");
        assert_eq!(events.topics_of(&node.name("echo")), LIFE);
    });
}

#[test]
fn ctr_run_passes_outputs_signal_and_environment() {
    on_each(|node| {
        let script = "echo out; echo err >&2; echo \"$WHAT\"; kill -KILL $$";
        let options = ["--rm", "--env", "WHAT=a variable"];
        let output = node.ctr_run_with("killed", &options, &["/bin/sh", "-c", script]);
        assert_eq!(output.code, 137, "{output:?}");
        assert_eq!(output.stdout, "out\na variable\n");
        assert_eq!(output.stderr, "err\n");
    });
}

#[test]
fn two_hundred_that_exit_at_once_have_each_their_code_output_and_events() {
    on_each(|node| {
        let events = node.events();
        let next = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    loop {
                        let code = next.fetch_add(1, Ordering::Relaxed);
                        if code >= 200 {
                            return;
                        }
                        let script = format!("echo number {code}; exit {code}");
                        let output = node.ctr_run(&format!("c{code}"), &["/bin/sh", "-c", &script]);
                        assert_eq!(
                            (output.code.cast_unsigned(), output.stdout.as_str()),
                            (code, format!("number {code}\n").as_str()),
                            "{output:?}"
                        );
                    }
                });
            }
        });
        for code in 0..200 {
            let id = node.name(&format!("c{code}"));
            assert_eq!(events.topics_of(&id), LIFE, "{id}");
            assert_eq!(events.exit_code(&id), Some(code));
        }
    });
}

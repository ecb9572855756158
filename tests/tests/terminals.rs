//! `ctr` on a terminal.

use std::process::Command;

use reaper_tests::{Node, on_each, pty::Terminal};

/// A shell with a prompt that no echo of a command can be taken for.
const SHELL: [&str; 3] = ["/bin/sh", "-c", "PS1='rea''dy> ' exec sh -i"];

/// `ctr task exec` on a terminal.
fn exec(node: &Node, id: &str, args: &[&str]) -> Command {
    let mut command = node.ctr_command();
    command
        .args(["task", "exec", "--tty", "--exec-id", "shell", "--fifo-dir"])
        .arg(node.dir().join("fifo"))
        .arg(node.name(id))
        .args(args);
    command
}

#[test]
fn run_gives_a_shell_a_terminal_and_its_size_and_ends_with_its_code() {
    on_each(|node| {
        let mut terminal =
            Terminal::spawn(&node.ctr_run_command("shell", &["--rm", "--tty"], &SHELL));
        terminal.expect("ready> ");
        terminal.send("test -t 0 && test -t 2 && tty\n");
        terminal.expect("/dev/pts/");
        terminal.expect("ready> ");
        // The sizes take a way of their own, and may come later than what is typed.
        terminal.send("until stty size | grep '24 8''0'; do :; done\n");
        terminal.expect("24 80");
        terminal.expect("ready> ");
        terminal.send("sleep 1061\n");
        reaper_tests::faults::process_named("sleep 1061");
        terminal.send("\x03");
        terminal.expect("ready> ");
        terminal.send("until stty size | grep '33 9''9'; do :; done; exit 31\n");
        terminal.resize_until(99, 33, "33 99");
        assert_eq!(terminal.finish().code, 31);
    });
}

#[test]
fn exec_gives_a_shell_a_terminal_of_its_own() {
    on_each(|node| {
        let started = node.ctr_run_with("rests", &["--detach"], &["/bin/sleep", "1062"]);
        started.assert_success();
        let mut terminal = Terminal::spawn(&exec(node, "rests", &SHELL));
        terminal.expect("ready> ");
        terminal.send("tty; exit 32\n");
        terminal.expect("/dev/pts/");
        assert_eq!(terminal.finish().code, 32);
        remove(node, "rests");
    });
}

#[test]
fn attach_reaches_a_shell_that_runs() {
    on_each(|node| {
        let id = node.name("attached");
        let detached = node.ctr_run_command("attached", &["--detach", "--tty"], &SHELL);
        let started = Terminal::spawn(&detached).finish();
        assert_eq!(started.code, 0, "{started:?}");
        let mut command = node.ctr_command();
        command.args(["task", "attach", &id]);
        let mut terminal = Terminal::spawn(&command);
        // Nothing says when it is attached but an answer.
        terminal.coax("\r", "ready> ");
        terminal.send("echo he''re; exit 33\r");
        terminal.expect("here");
        assert_eq!(terminal.finish().code, 33);
        remove(node, "attached");
    });
}

/// Kills and removes what `ctr run --detach` has started.
fn remove(node: &Node, name: &str) {
    let id = node.name(name);
    node.ctr(&["task", "rm", "--force", &id]);
    node.ctr(&["container", "rm", &id]).assert_success();
}

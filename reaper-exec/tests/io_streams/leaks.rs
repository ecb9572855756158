//! Nothing stays open.

use std::fs;

use reaper_exec::io::StreamTarget;

use crate::support::{Ask, Scratch, reader, uri};

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc").count()
}

#[test]
fn streams_leave_no_descriptor_open() {
    let folder = Scratch::alone();
    let [input, out, err] = ["in", "out", "err"].map(|name| folder.fifo(name));
    let direct = || Ask::streams(uri(&input), uri(&out), uri(&err));
    let terminal = || Ask::terminal(uri(&input), uri(&out));
    let before = open_files();

    for ask in [direct(), terminal()] {
        // With a reader: all is closed by itself.
        let clients = [reader(&out), reader(&err)];
        let mut monitor = ask.bind();
        monitor.spawn("echo out; echo err >&2");
        assert_eq!(monitor.run_to_exit(), 0);
        monitor.finish();
        drop(clients);
        assert_eq!(open_files(), before, "before the streams are dropped");
    }

    for ask in [direct(), terminal()] {
        // Never read, and deleted.
        let mut monitor = ask.bind();
        monitor.spawn("echo out; echo err >&2");
        assert_eq!(monitor.run_to_exit(), 0);
        assert!(!monitor.bound.is_finished());
        drop(monitor);
        assert_eq!(open_files(), before);
        // Never started.
    }
    for ask in [direct(), terminal()] {
        drop(ask.bind());
        assert_eq!(open_files(), before);
    }

    // Refused at the last stream, with a logger running.
    let logger = "binary:///bin/cat?/dev/null";
    Ask::streams(uri(&input), uri(logger), uri(folder.join("missing"))).refused();
    Ask::terminal(uri(&input), StreamTarget::Inherit).refused();
    assert_eq!(open_files(), before);
}

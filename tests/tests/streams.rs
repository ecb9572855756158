//! Standard streams through FIFOs, with readers of every temper.

use std::{
    fs,
    io::{Read, Write},
    process::Command,
    thread,
};

use reaper_tests::{
    api::Streams, containerd::is_yardstick, faults::process_named, on_each, runtime::until,
    spec::Workload,
};

const EIGHT_MIB: usize = 8 << 20;

#[test]
fn eight_mib_in_one_write_arrive_though_exit_and_delete_follow_at_once() {
    let script = "seq 1 2000000 | dd bs=8388608 count=1 iflag=fullblock 2>/dev/null";
    let expected = Command::new("sh")
        .args(["-c", script])
        .output()
        .expect("run it here")
        .stdout;
    assert_eq!(expected.len(), EIGHT_MIB);
    on_each(|node| {
        let out = node.fifo("out");
        let reading = out.read();
        let id = node.run(
            "big",
            &Workload::shell(script),
            &Streams::default().stdout(&out),
        );
        let exit = node.api().wait(&id, "").finish().expect("wait");
        assert_eq!(exit.code, 0);
        node.delete(&id);
        let bytes = reading.finish();
        assert_eq!(bytes.len(), EIGHT_MIB);
        assert!(bytes == expected, "the bytes are in order");
    });
}

#[test]
fn a_reader_that_comes_after_the_exit_gets_all_and_then_the_end() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let (out, err) = (node.fifo("out"), node.fifo("err"));
        let streams = Streams::default().stdout(&out).stderr(&err);
        let id = node.run(
            "late",
            &Workload::shell("echo late; echo later >&2; exit 4"),
            &streams,
        );
        assert_eq!(node.api().wait(&id, "").finish().expect("wait").code, 4);
        assert_eq!(out.read().text(), "late\n");
        assert_eq!(err.read().text(), "later\n");
        node.delete(&id);
    });
}

#[test]
fn absent_reader_does_not_block_the_container() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let (out, err) = (node.fifo("out"), node.fifo("err"));
        let streams = Streams::default()
            .stdout(&out)
            .stderr(&err)
            .stdin(node.fifo("in"));
        let id = node.run(
            "unheard",
            &Workload::shell("echo unheard; exit 6"),
            &streams,
        );
        assert_eq!(node.api().wait(&id, "").finish().expect("wait").code, 6);
        assert_eq!(node.delete(&id).code, 6);
    });
}

#[test]
fn a_reader_that_stops_reading_holds_up_nothing_but_the_writes() {
    on_each(|node| {
        let out = node.fifo("out");
        let mut reader = out.open_reader();
        let name = "yes a-line-nobody-reads";
        let workload = Workload::new(&["/usr/bin/yes", "a-line-nobody-reads"]);
        let id = node.run("blocked", &workload, &Streams::default().stdout(&out));
        let yes = process_named(&format!("/usr/bin/{name}"));
        until("its writes are held up", || {
            (fs::read_to_string(format!("/proc/{}/wchan", yes.pid))
                .ok()?
                .contains("pipe"))
            .then_some(())
        });
        let waiting = node.api().wait(&id, "");
        let state = node
            .api()
            .state(&id, "")
            .expect("state while its writes are held up");
        assert_eq!(state.status().as_str_name(), "RUNNING");
        assert!(!waiting.is_finished());
        node.api()
            .kill(&id, "", 9)
            .expect("kill while its writes are held up");
        assert_eq!(waiting.finish().expect("wait").code, 137);
        let mut rest = Vec::new();
        if !is_yardstick() {
            reader
                .read_to_end(&mut rest)
                .expect("read what is in the pipe");
            assert!(rest.starts_with(b"a-line-nobody-reads\n"));
        }
        drop(reader);
        node.delete(&id);
    });
}

#[test]
fn next_reader_loses_nothing_after_reader_died() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let (out, go) = (node.fifo("out"), node.fifo("go"));
        let mut reader = out.open_reader();
        let script = format!(
            "echo one; read -r word <{}; echo two; echo three; exit 8",
            go.as_ref().display()
        );
        let id = node.run(
            "reattached",
            &Workload::shell(&script),
            &Streams::default().stdout(&out),
        );
        let mut line = [0; 4];
        reader.read_exact(&mut line).expect("read the first line");
        assert_eq!(&line, b"one\n");
        drop(reader);
        let mut gate = until("it waits to go on", || go.open_writer().ok());
        gate.write_all(b"go\n").expect("let it go on");
        assert_eq!(node.api().wait(&id, "").finish().expect("wait").code, 8);
        assert_eq!(out.read().text(), "two\nthree\n");
        node.delete(&id);
    });
}

#[test]
fn a_workload_of_another_user_opens_its_streams_by_name() {
    on_each(|node| {
        let (out, err) = (node.fifo("out"), node.fifo("err"));
        let (reading_out, reading_err) = (out.read(), err.read());
        let script = "id -u >/dev/stdout; echo trouble >/dev/stderr";
        let id = node.run(
            "nobody",
            &Workload::shell(script).user(65534, 65534),
            &Streams::default().stdout(&out).stderr(&err),
        );
        let exit = node.api().wait(&id, "").finish().expect("wait");
        node.delete(&id);
        assert_eq!(
            (reading_out.text().as_str(), reading_err.text().as_str()),
            ("65534\n", "trouble\n")
        );
        assert_eq!(exit.code, 0);
    });
}

#[test]
fn descendants_of_init_end_with_it_and_hold_no_reader() {
    on_each(|node| {
        let out = node.fifo("out");
        let reading = out.read();
        let script = "setsid sh -c 'sleep 1011 & sleep 1012' & \
                      until pgrep -x -f 'sleep 1011' && pgrep -x -f 'sleep 1012'; do :; done; \
                      echo leaving; exit 9";
        let id = node.run(
            "daemons",
            &Workload::shell(script),
            &Streams::default().stdout(&out),
        );
        assert_eq!(node.api().wait(&id, "").finish().expect("wait").code, 9);
        // The processes are looked for by the check for leftovers too.
        let text = reading.text();
        assert!(text.ends_with("leaving\n"), "{text:?}");
        node.delete(&id);
    });
}

#[test]
fn file_targets_are_appended_to_by_both_outputs() {
    on_each(|node| {
        let log = node.work().join("log");
        fs::write(&log, "before\n").expect("write a file");
        let target = format!("file://{}", log.display());
        let streams = Streams {
            stdout: target.clone(),
            stderr: target,
            ..Streams::default()
        };
        let id = node.run(
            "logged",
            &Workload::shell("echo out; echo err >&2"),
            &streams,
        );
        assert_eq!(node.api().wait(&id, "").finish().expect("wait").code, 0);
        node.delete(&id);
        assert_eq!(
            fs::read_to_string(log).expect("read the file"),
            "before\nout\nerr\n"
        );
    });
}

#[test]
fn a_gibibyte_through_cat_arrives_whole() {
    const BLOCKS: u64 = 1024;
    // Every block is its own: lost, doubled or swapped ones show.
    let block = |number: u64| {
        let mut block = vec![0x5a_u8; 1 << 20];
        block[..8].copy_from_slice(&number.to_le_bytes());
        block[1 << 19..(1 << 19) + 8].copy_from_slice(&(!number).to_le_bytes());
        block
    };
    on_each(|node| {
        let (input, out) = (node.fifo("in"), node.fifo("out"));
        let streams = Streams::default().stdin(&input).stdout(&out);
        let mut reader = out.open_reader();
        let id = node.run("cat", &Workload::new(&["/bin/cat"]), &streams);
        let mut writer = input.open_writer().expect("the workload reads");
        let writing = thread::spawn(move || {
            (0..BLOCKS).try_for_each(|number| writer.write_all(&block(number)))
        });
        let mut seen = vec![0; 1 << 20];
        for number in 0..BLOCKS {
            reader.read_exact(&mut seen).expect("read a block");
            assert!(
                seen == block(number),
                "block {number} is whole and in its place"
            );
        }
        writing.join().expect("the writer").expect("write all");
        // The client has closed its end, which is no end of the input.
        node.api().close_stdin(&id, "").expect("close the input");
        assert_eq!(node.api().wait(&id, "").finish().expect("wait").code, 0);
        assert_eq!(reader.read(&mut seen).expect("read the end"), 0);
        node.delete(&id);
    });
}

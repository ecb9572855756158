use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
};

use rustix::pipe::pipe;

use super::*;

#[test]
fn remaining_output_is_forwarded_after_exit_while_pty_stays_open() {
    let (master, held) = pipe().unwrap();
    let (read_end, output) = pipe().unwrap();
    let (ended, running) = pipe().unwrap();
    let mut workload = File::from(held);
    workload.write_all(b"last words \0\xff").unwrap();
    drop(running);
    pass_output(master.as_fd(), output.as_fd(), ended.as_fd(), || {
        panic!("nobody hung up")
    });
    drop(output);
    let mut bytes = Vec::new();
    File::from(read_end).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"last words \0\xff");
    drop(workload);
}

#[test]
fn closed_output_is_reported_once_and_rest_discarded() {
    let (master, held) = pipe().unwrap();
    let (read_end, output) = pipe().unwrap();
    let (ended, _running) = pipe().unwrap();
    drop(read_end);
    let writer = thread::spawn(move || File::from(held).write_all(&[b'x'; 1 << 20]).unwrap());
    let mut told = 0;
    pass_output(master.as_fd(), output.as_fd(), ended.as_fd(), || told += 1);
    writer.join().unwrap();
    assert_eq!(told, 1);
}

#[test]
fn the_end_of_a_file_becomes_the_terminals_end_of_input() {
    let passed = |input: &[u8]| {
        let (from, to) = pipe().unwrap();
        let (result, master) = pipe().unwrap();
        File::from(to).write_all(input).unwrap();
        pass_input(from.as_fd(), master.as_fd());
        drop(master);
        io::read_to_string(File::from(result)).unwrap()
    };
    assert_eq!(passed(b""), "\x04");
    assert_eq!(passed(b"line\n"), "line\n\x04");
    assert_eq!(passed(b"no line"), "no line\x04\x04");
}

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, AsRawFd},
};

use super::*;

#[test]
fn small_and_large_documents_arrive_with_their_descriptors() {
    for size in [0, 10, INLINE_LIMIT - 3, INLINE_LIMIT, 1 << 20] {
        let (here, there) = pair().unwrap();
        let text = "x".repeat(size);
        let (mut reader, writer) = io::pipe().unwrap();
        send(here.as_fd(), &text, &[writer.as_fd()]).unwrap();
        drop(writer);
        let message = receive(there.as_fd()).unwrap().unwrap();
        assert_eq!(message.parse::<String>().unwrap(), text);
        let [descriptor] = <[_; 1]>::try_from(message.descriptors).unwrap();
        File::from(descriptor).write_all(b"through").unwrap();
        let mut seen = String::new();
        reader.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "through");
    }
}

#[test]
fn receive_from_closed_peer_returns_none_and_send_fails() {
    let (here, there) = pair().unwrap();
    drop(there);
    assert!(receive(here.as_fd()).unwrap().is_none());
    assert!(send(here.as_fd(), &1, &[]).is_err(), "no SIGPIPE, an error");
}

#[test]
fn garbage_is_an_error() {
    for garbage in [&b"?"[..], b"m", b"mx", b"i{"] {
        let (here, there) = pair().unwrap();
        rustix::net::send(&here, garbage, SendFlags::empty()).unwrap();
        let parsed = receive(there.as_fd()).and_then(|message| message.unwrap().parse::<u8>());
        assert!(parsed.is_err(), "{garbage:?}");
    }
}

/// A monitor that is killed has answered what it has answered, whatever else it was asked.
#[test]
fn what_a_peer_has_sent_arrives_though_it_has_ended_with_a_message_unread() {
    let (here, there) = pair().unwrap();
    send(there.as_fd(), &7, &[]).unwrap();
    send(here.as_fd(), &"unread", &[]).unwrap();
    drop(there);
    let answer = receive(here.as_fd()).unwrap().expect("the answer");
    assert_eq!(answer.parse::<u8>().unwrap(), 7);
    assert!(receive(here.as_fd()).unwrap().is_none());
}

#[test]
fn a_packet_beyond_the_limit_is_refused_whole() {
    let (here, there) = pair().unwrap();
    rustix::net::send(&here, &vec![INLINE; INLINE_LIMIT + 2], SendFlags::empty()).unwrap();
    assert!(receive(there.as_fd()).is_err());
}

#[test]
fn a_listener_is_reached_below_a_folder_of_any_depth() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("d".repeat(200)).join("e".repeat(200));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    let listener = listen(&path).unwrap();
    assert!(accept(listener.as_fd()).unwrap().is_none());
    let client = connect(&path).unwrap();
    let server = accept(listener.as_fd()).unwrap().unwrap();
    send(client.as_fd(), &7, &[]).unwrap();
    assert_eq!(
        receive(server.as_fd())
            .unwrap()
            .unwrap()
            .parse::<u8>()
            .unwrap(),
        7
    );
    assert!(client.as_raw_fd() >= 0);
    drop((listener, server));
    assert!(connect(&path).is_err(), "nobody listens");
}

use std::{fmt::Write, os::unix::ffi::OsStrExt};

use proptest::prelude::*;

use super::*;

fn uri(text: &str) -> Result<Target, IoError> {
    parse(Stream::Stdout, &StreamTarget::Uri(text.to_owned()))
}

fn logger(program: &str, args: &[&str]) -> Target {
    let args = args.iter().map(OsString::from).collect();
    Target::Logger(LoggerCommand {
        program: program.into(),
        args,
    })
}

#[test]
fn targets_as_containerds_clients_write_them() {
    assert_eq!(
        uri("/run/x/out").unwrap(),
        Target::Path("/run/x/out".into())
    );
    assert_eq!(
        uri("/a%20b?c#d").unwrap(),
        Target::Path("/a%20b?c#d".into()),
        "taken literally"
    );
    assert_eq!(uri("fifo:///run/x").unwrap(), Target::Fifo("/run/x".into()));
    assert_eq!(
        uri("FILE:///a%20b+c").unwrap(),
        Target::File("/a b+c".into())
    );
    assert_eq!(
        uri("file://localhost/a").unwrap(),
        Target::File("/a".into())
    );
    assert_eq!(uri("binary:///bin/log").unwrap(), logger("/bin/log", &[]));
    assert_eq!(
        uri("binary:///bin/log?-v&name=a+b%26c&name=%3d&").unwrap(),
        logger("/bin/log", &["-v", "", "name", "a b&c", "name", "="])
    );
}

#[test]
fn error_names_an_unknown_target() {
    for garbage in [
        "",
        "out",
        "./out",
        "fifo:/run/x",
        "fifo://",
        "fifo://run/x",
        "file://localhostile/x",
        "file:///x?y",
        "file:///x#y",
        "file:///%zz",
        "file:///%2",
        "file:///%00",
        "/a\0b",
        "binary://logger?a=b",
        "binary:///logger?a=%",
        "http:///x",
        "://",
        "npipe:///x",
    ] {
        let error = uri(garbage).expect_err(garbage).to_string();
        assert!(
            error.contains("stdout") && error.contains(&format!("{garbage:?}")),
            "{error}"
        );
    }
}

fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").expect("a String takes everything");
        text
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = uri(&text);
    }

    #[test]
    fn any_text_after_uri_scheme_parses_without_panic(text in "(fifo|file|binary)://[/%?&=+a-f0-9#é]*") {
        let _ = uri(&text);
    }

    #[test]
    fn every_file_name_can_be_written(name in prop::collection::vec(1u8.., 0..40)) {
        let Target::File(path) = uri(&format!("file:///{}", encode(&name))).unwrap() else {
            panic!("no file");
        };
        prop_assert_eq!(&path.as_os_str().as_bytes()[1..], name);
    }

    #[test]
    fn every_argument_can_be_written(
        pairs in prop::collection::vec((prop::collection::vec(1u8.., 1..9), prop::collection::vec(1u8.., 0..9)), 0..5)
    ) {
        let query: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        let Target::Logger(command) = uri(&format!("binary:///x?{}", query.join("&"))).unwrap() else {
            panic!("no logger");
        };
        let wanted: Vec<Vec<u8>> = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
        let args: Vec<Vec<u8>> = command.args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        prop_assert_eq!(args, wanted);
    }
}

//! `metrics`, as node-exporter and Prometheus read them.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    process::{Child, Stdio},
    time::Duration,
};

use crate::rig::Rig;

/// The value of a sample, by all that stands before it.
fn value(text: &str, sample: &str) -> f64 {
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let value = values
        .next()
        .unwrap_or_else(|| panic!("no {sample}: {text}"));
    assert_eq!(values.next(), None, "{sample} is there twice");
    value.parse().unwrap()
}

/// Every line is a comment or a sample of the family that was announced last, and no sample is there twice.
fn check_format(text: &str) {
    let mut family = "";
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let suffix = name
                .strip_prefix(family)
                .unwrap_or_else(|| panic!("{line} in {family}"));
            assert!(
                ["", "_bucket", "_sum", "_count"].contains(&suffix),
                "{line}"
            );
            value.parse::<f64>().unwrap();
            samples.push(sample);
        }
    }
    let all = samples.len();
    samples.sort_unstable();
    samples.dedup();
    assert_eq!(samples.len(), all, "{text}");
    assert!(text.ends_with('\n'));
}

/// What counts stays in the root.
fn end(rig: &Rig) {
    fs::remove_file(rig.root().join(".metrics")).unwrap();
}

#[test]
fn operations_are_counted_over_the_lives_of_programs() {
    let rig = Rig::with_overlay();
    let before = rig.ok(&["metrics"]);
    check_format(&before);
    assert_eq!(value(&before, "reaper_container_starts_total"), 0.0);
    rig.running("one");
    rig.quietly(&[
        "run",
        "--keep",
        "--name",
        "two",
        "--overlay=group:g\u{2b}x",
        "--",
        "touch",
        "/mark",
    ]);
    rig.fails(1, &["run", "--", "/nowhere/at/all"]);
    rig.fails(1, &["create", "--bundle", &rig.shell("exit 0"), "one"]);
    rig.running("of-pod");
    let text = rig.ok(&["metrics"]);
    check_format(&text);
    for (sample, expected) in [
        ("reaper_containers{status=\"running\"}", 2.0),
        ("reaper_containers{status=\"stopped\"}", 1.0),
        ("reaper_containers{status=\"paused\"}", 0.0),
        ("reaper_container_starts_total", 3.0),
        (
            "reaper_container_operation_duration_seconds_count{operation=\"create\"}",
            4.0,
        ),
        (
            "reaper_container_operation_duration_seconds_bucket{operation=\"start\",le=\"+Inf\"}",
            3.0,
        ),
        (
            "reaper_container_operation_failures_total{operation=\"start\",step=\"exec\"}",
            1.0,
        ),
        (
            "reaper_container_operation_failures_total{operation=\"create\",step=\"refused\"}",
            1.0,
        ),
        ("reaper_overlay_files{scope=\"group-g+x\"}", 1.0),
        ("reaper_overlay_scopes{scope=\"node\"}", 1.0),
    ] {
        assert_eq!(value(&text, sample), expected, "{sample}: {text}");
    }
    let sum = "reaper_container_operation_duration_seconds_sum{operation=\"create\"}";
    assert!(value(&text, sum) > 0.0);
    // A record that cannot be read hides nothing else.
    fs::create_dir_all(rig.root().join("bad")).unwrap();
    fs::write(rig.root().join("bad/state.json"), "{").unwrap();
    let text = rig.ok(&["metrics"]);
    assert_eq!(value(&text, "reaper_containers_unreadable"), 1.0);
    assert_eq!(value(&text, "reaper_containers{status=\"running\"}"), 2.0);
    fs::remove_dir_all(rig.root().join("bad")).unwrap();
    for id in ["one", "two", "of-pod"] {
        rig.ok(&["delete", "--force", id]);
    }
    end(&rig);
}

#[test]
fn the_file_of_node_exporter_is_replaced_as_a_whole() {
    let rig = Rig::new();
    let file = rig.path("textfile").join("reaper.prom");
    let name = file.to_str().unwrap();
    assert!(
        rig.fails(1, &["metrics", "--output", name])
            .contains("textfile")
    );
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "old").unwrap();
    let mut old = fs::File::open(&file).unwrap();
    assert_eq!(rig.ok(&["metrics", "--output", name]), "");
    check_format(&fs::read_to_string(&file).unwrap());
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "node-exporter is another user");
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old", "who reads the old one has it whole");
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    // A name that cannot be replaced leaves nothing beside it.
    let folder = rig.path("textfile/x.prom");
    fs::create_dir(&folder).unwrap();
    rig.fails(1, &["metrics", "--output", folder.to_str().unwrap()]);
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 2);
    end(&rig);
}

/// A server, which is killed in the end.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(rig: &Rig, listen: &str) -> Self {
        let mut command = rig.command(&["metrics", "--listen", listen]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let stderr = child.stderr.take().unwrap();
        BufReader::new(stderr).read_line(&mut line).unwrap();
        let said = line.trim().rsplit(' ').next().unwrap();
        let address = said
            .trim_start_matches("http://")
            .trim_end_matches("/metrics");
        Self {
            address: address.to_owned(),
            child,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    fn ask(&self, request: &str) -> String {
        answer(self.connect(), request)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn answer(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn prometheus_is_served_whatever_other_clients_do() {
    let rig = Rig::new();
    let server = Server::start(&rig, "0");
    assert!(
        server.address.starts_with("127.0.0.1:"),
        "{}",
        server.address
    );
    let text = server.ask(GET);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("Content-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    check_format(body);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200"),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", "200"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405"),
        ("\r\n\r\n", "405"),
    ] {
        let text = server.ask(request);
        assert_eq!(text.split(' ').nth(1), Some(status), "{request}: {text}");
    }
    // Some say nothing, some go away, some ask and never read, and one asks for too much.
    let silent: Vec<_> = (0..5).map(|_| server.connect()).collect();
    (0..5).for_each(|_| drop(server.connect()));
    let deaf: Vec<_> = (0..5)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(GET.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut endless = server.connect();
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    // It is cut off somewhere in the middle.
    let _ = endless.write_all(long.as_bytes());
    let _ = endless.read_to_end(&mut Vec::new());
    assert!(server.ask(GET).starts_with("HTTP/1.1 200"));
    // More than are served at a time: those that say nothing are cut off, and Prometheus gets its turn.
    let more: Vec<_> = (0..20).map(|_| server.connect()).collect();
    assert!(server.ask(GET).starts_with("HTTP/1.1 200"));
    drop((silent, deaf, more, server));
    end(&rig);
}

#[test]
fn a_socket_is_for_its_owner_and_outlives_no_server() {
    let rig = Rig::new();
    let path = rig.path("metrics.sock");
    let name = path.to_str().unwrap();
    for _ in 0..2 {
        // The second time one of a killed server is there.
        let server = Server::start(&rig, name);
        let found = fs::metadata(&path).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        let text = answer(UnixStream::connect(&path).unwrap(), GET);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        drop(server);
    }
    fs::remove_file(&path).unwrap();
    // What another program uses stays its own.
    let other = UnixListener::bind(&path).unwrap();
    assert!(
        rig.fails(1, &["metrics", "--listen", name])
            .contains("in use")
    );
    drop(other);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    rig.fails(1, &["metrics", "--listen", name]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    end(&rig);
}

#[test]
fn other_machines_are_not_served_unless_it_is_said() {
    let rig = Rig::new();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let error = rig.fails(1, &["metrics", "--listen", address]);
        assert!(error.contains("--public"), "{error}");
    }
    assert!(!rig.root().exists());
}

//! Records and messages: what is wrong in one is named by its place.

use proptest::{prelude::*, sample::select};
use reaper_overlay::ViewRequest;
use reaper_spec::{Mount, ProcessIdentity, ProcessSpec};
use serde_json::{Value, json};

use crate::{
    cgroup::Cgroups,
    executor::MonitorOptions,
    io::Streams,
    json::parse,
    protocol::{
        Attached, CleanupRecord, CreateContainer, ExitRecord, Request, RequestMessage,
        ResponseMessage, VERSION,
    },
};

fn view() -> ViewRequest {
    let mut view = ViewRequest::new("web".parse().expect("an id"), "/".into());
    let mount = Mount {
        destination: "/data".into(),
        typ: Some("bind".to_owned()),
        source: Some("/srv".into()),
        options: vec!["rbind".to_owned(), "ro".to_owned()],
    };
    view.mounts = vec![mount; 3];
    view
}

fn plan() -> Value {
    let plan = CleanupRecord {
        version: VERSION,
        monitor: ProcessIdentity {
            pid: 7,
            start_time: 9,
            boot_id: "b".to_owned(),
        },
        view: view(),
        cgroups: Cgroups::default(),
        runtime: None,
        hooks: None,
    };
    serde_json::to_value(plan).expect("a record")
}

fn create() -> Value {
    let mut process = ProcessSpec::new(["a", "b"], "/").expect("a process");
    process.env = vec!["A=1".to_owned()];
    let call = Request::Create(Box::new(CreateContainer {
        id: "web".parse().expect("an id"),
        namespace: String::new(),
        dir: "/run/web".into(),
        process,
        cgroups_path: Some("/a/b".parse().expect("a path")),
        resources: reaper_spec::Resources::default(),
        view: view(),
        streams: Streams::default(),
        attached: Attached::default(),
        options: MonitorOptions::default(),
        runtime: None,
        seccomp: None,
        hooks: None,
        namespaces: Vec::new(),
        new_pid_namespace: false,
        holds_pids: false,
        sysctls: [("net.a".to_owned(), "1".to_owned())].into(),
    }));
    json!({"version": VERSION, "serial": 3, "call": call})
}

fn state() -> Value {
    let process = json!({"pid": 7, "start_time": 9, "boot_id": "b"});
    json!({"serial": 3, "answer": {"Ok": {"Observed": {
        "status": "running", "process": process, "monitor": process, "exit": null,
    }}}})
}

fn exit() -> Value {
    json!({"version": VERSION, "how": "exited", "code": 3, "at": "2026-11-27T00:21:41Z"})
}

type Read = fn(&[u8]) -> std::io::Result<()>;

/// Each kind: an example, and how it is read.
fn kinds() -> [(fn() -> Value, Read); 4] {
    [
        (plan, |json| parse::<CleanupRecord>(json).map(drop)),
        (create, |json| parse::<RequestMessage>(json).map(drop)),
        (state, |json| parse::<ResponseMessage>(json).map(drop)),
        (exit, |json| parse::<ExitRecord>(json).map(drop)),
    ]
}

/// Places of the kinds, as JSON pointers, and how an error names them.
const PLACES: &[(usize, &str, &str)] = &[
    (0, "/monitor", "monitor"),
    (0, "/monitor/pid", "monitor.pid"),
    (0, "/view/mounts/2", "view.mounts[2]"),
    (0, "/view/mounts/2/options", "view.mounts[2].options"),
    (0, "/view/mounts/1/options/1", "view.mounts[1].options[1]"),
    (0, "/view/cwd", "view.cwd"),
    (1, "/call/Create/id", "call.Create.id"),
    (
        1,
        "/call/Create/process/args/1",
        "call.Create.process.args[1]",
    ),
    (1, "/call/Create/process/env", "call.Create.process.env"),
    (1, "/call/Create/cgroups_path", "call.Create.cgroups_path"),
    (1, "/call/Create/sysctls/net.a", "call.Create.sysctls.net.a"),
    (
        1,
        "/call/Create/view/mounts/0/destination",
        "call.Create.view.mounts[0].destination",
    ),
    (2, "/serial", "serial"),
    (2, "/answer/Ok/Observed/status", "answer.Ok.Observed.status"),
    (
        2,
        "/answer/Ok/Observed/monitor/start_time",
        "answer.Ok.Observed.monitor.start_time",
    ),
];

proptest! {
    #[test]
    fn wrong_value_is_named_by_its_place(
        (kind, pointer, place) in select(PLACES),
        wrong in select(vec![json!([[]]), json!({"x": {}}), json!(-1.5), json!(false)]),
    ) {
        let (example, read) = kinds()[kind];
        let mut document = example();
        *document.pointer_mut(pointer).expect("a place") = wrong;
        let said = read(document.to_string().as_bytes()).expect_err("an error").to_string();
        prop_assert!(said.starts_with(place), "{}: {}", place, said);
    }

    #[test]
    fn no_part_is_read_as_the_whole(kind in 0..4_usize, cut in 1..40_usize) {
        let (example, read) = kinds()[kind];
        let text = example().to_string();
        prop_assert!(read(&text.as_bytes()[..text.len().saturating_sub(cut)]).is_err());
        let twice = text.repeat(2);
        prop_assert!(read(twice.as_bytes()).is_err());
    }
}

#[test]
fn each_example_is_read() {
    for (example, read) in kinds() {
        let text = example().to_string();
        read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

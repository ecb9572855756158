//! As much of an API server as the scripts use: a node, a lease, a DaemonSet, and a list of events.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use serde_json::{Value, json};

/// The path of the node.
pub(crate) const NODE: &str = "/api/v1/nodes/n1";
/// The path of the lease.
pub(crate) const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/reaper-system/leases/reaper-node";
/// The path of the DaemonSet.
pub(crate) const DAEMONSET: &str = "/apis/apps/v1/namespaces/reaper-system/daemonsets/reaper-node";

/// What it has, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) node: Value,
    pub(crate) lease: Option<Value>,
    pub(crate) daemonset: Value,
    pub(crate) events: Vec<Value>,
    /// The names of namespaces, unless it fails to say them.
    pub(crate) namespaces: Option<Vec<String>>,
    /// Methods and paths of the requests that changed something, in their order.
    pub(crate) changes: Vec<String>,
    /// How many requests had no token.
    pub(crate) strangers: usize,
}

/// A server on a port of the loopback device, which ends with the test's process.
#[derive(Debug, Clone)]
pub(crate) struct ApiServer {
    objects: Arc<Mutex<Objects>>,
    /// Its address.
    pub(crate) url: String,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let objects = Arc::new(Mutex::new(Objects {
            node: json!({ "metadata": { "name": "n1", "labels": {} }, "status": { "conditions": [
                { "type": "Ready", "status": "True" },
            ]}}),
            daemonset: json!({ "metadata": { "generation": 1 }, "status": { "observedGeneration": 1 } }),
            ..Objects::default()
        }));
        let server = Self { objects, url };
        let served = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                served.serve(stream);
            }
        });
        server
    }

    pub(crate) fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a second descriptor"));
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line of a request");
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let header = |name: &str| {
            let lower = |line: &String| line.to_ascii_lowercase();
            let line = lines.iter().find(|line| lower(line).starts_with(name))?;
            Some(line.split_once(": ")?.1.to_owned())
        };
        let length = header("content-length:").and_then(|text| text.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).expect("a request's body");
        let kind = header("content-type:").unwrap_or_default();
        let mut objects = self.objects();
        if header("authorization:").as_deref() != Some("Bearer a-token") {
            objects.strangers += 1;
        }
        let mut words = lines[0].split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (code, answer) = objects.answer(method, path, &kind, &body);
        drop(objects);
        let answer = answer.to_string();
        let length = answer.len();
        // The client may have gone.
        let _ = write!(
            stream,
            "HTTP/1.1 {code} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
        );
    }
}

impl Objects {
    fn answer(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Value) {
        let body = || serde_json::from_slice::<Value>(body).expect("a body in JSON");
        if method != "GET" {
            self.changes.push(format!("{method} {path}"));
        }
        let status = format!("{NODE}/status");
        let leases = LEASE.trim_end_matches("/reaper-node");
        match (method, path) {
            ("GET", NODE) => (200, self.node.clone()),
            ("GET", LEASE) => self
                .lease
                .clone()
                .map_or((404, Value::Null), |it| (200, it)),
            ("GET", DAEMONSET) => (200, self.daemonset.clone()),
            ("PATCH", NODE) if kind == "application/merge-patch+json" => {
                merge(&mut self.node, &body());
                (200, self.node.clone())
            }
            ("PATCH", DAEMONSET) if kind == "application/strategic-merge-patch+json" => {
                merge(&mut self.daemonset, &body());
                self.daemonset["metadata"]["generation"] = 2.into();
                (200, self.daemonset.clone())
            }
            ("PATCH", path)
                if path == status && kind == "application/strategic-merge-patch+json" =>
            {
                self.patch_conditions(&body());
                (200, self.node.clone())
            }
            ("POST", "/api/v1/namespaces/default/events") => {
                self.events.push(body());
                (201, body())
            }
            ("POST", path) if path == leases && self.lease.is_some() => (409, Value::Null),
            ("POST", path) if path == leases => (201, self.set_lease(body())),
            ("PUT", LEASE) => {
                let seen = &body()["metadata"]["resourceVersion"];
                match &self.lease {
                    Some(lease) if lease["metadata"]["resourceVersion"] == *seen => {
                        (200, self.set_lease(body()))
                    }
                    _ => (409, Value::Null),
                }
            }
            ("DELETE", LEASE) => (200, self.lease.take().unwrap_or_default()),
            ("GET", path) if path.starts_with("/api/v1/namespaces/") => match &self.namespaces {
                None => (503, Value::Null),
                Some(names) if names.iter().any(|name| path.ends_with(&format!("/{name}"))) => {
                    (200, Value::Null)
                }
                Some(_) => (404, Value::Null),
            },
            _ => (403, json!({ "message": format!("{method} {path} {kind}") })),
        }
    }

    fn set_lease(&mut self, mut lease: Value) -> Value {
        lease["metadata"]["resourceVersion"] = self.changes.len().to_string().into();
        self.lease = Some(lease.clone());
        lease
    }

    /// Conditions are merged by their type.
    fn patch_conditions(&mut self, patch: &Value) {
        let conditions = self.node["status"]["conditions"]
            .as_array_mut()
            .expect("conditions");
        for condition in patch["status"]["conditions"]
            .as_array()
            .expect("conditions")
        {
            conditions.retain(|it| it["type"] != condition["type"]);
            if condition["$patch"] != "delete" {
                conditions.push(condition.clone());
            }
        }
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.node["metadata"]["labels"][key].as_str()
    }

    pub(crate) fn condition(&self) -> Option<&Value> {
        let conditions = self.node["status"]["conditions"]
            .as_array()
            .expect("conditions");
        conditions.iter().find(|it| it["type"] == "ReaperReady")
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(entries) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in entries {
        if value.is_null() {
            target.as_object_mut().expect("an object").remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

//! A namespace of the cluster for one test, and what tests ask of pods.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{Cluster, conditions, eventually};
use crate::{config::INSTALLED, ctr::Output, image::BUSYBOX, leftovers};

/// The runtime class of runc's containers.
pub const RUNC: &str = "runc";

/// What pods and templates name as their runtime class, for which their namespace puts its own.
pub const OURS: &str = "ours";

/// A namespace of the cluster for one test.
#[derive(Debug)]
pub struct Space<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: String,
    /// The runtime class of its pods.
    pub class: &'static str,
}

/// A pod of Reaper whose only container, `main`, runs a script once.
pub fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "name": name } },
        "spec": {
            "runtimeClassName": OURS,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container("main", script)],
        },
    })
}

/// A container that runs a script.
pub fn container(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": BUSYBOX, "command": ["/bin/sh", "-c", script] })
}

impl Cluster {
    /// Makes a namespace in which pods of a runtime class can be made.
    pub fn space(&self, name: &str, class: &'static str) -> Space<'_> {
        let name = name.replace('_', "-");
        let name = name[..name.len().min(60)].trim_end_matches('-').to_owned();
        self.kubectl(&["create", "namespace", &name])
            .assert_success();
        let space = Space {
            cluster: self,
            name,
            class,
        };
        // That of the same test with another class or containerd.
        let _ = fs::remove_dir_all(self.node().work().join(&space.name));
        eventually("the namespace has its account", || {
            let account = space.get("serviceaccounts", "default")?;
            account["secrets"].is_array().then_some(())
        });
        space
    }
}

impl Space<'_> {
    /// Runs `kubectl` in this namespace.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend(args);
        self.cluster.kubectl(&all)
    }

    /// Makes an object in this namespace, or changes it.
    pub fn apply(&self, object: &Value) {
        let mut object = object.clone();
        object["metadata"]["namespace"] = self.name.as_str().into();
        name_class(&mut object, self.class);
        self.cluster.apply(&object);
    }

    /// An object of the core API, such as of `pods`, unless there is none.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.get_of("/api/v1", kind, name)
    }

    /// An object of an API such as `/apis/apps/v1`, unless there is none.
    pub fn get_of(&self, api: &str, kind: &str, name: &str) -> Option<Value> {
        let namespace = &self.name;
        self.cluster
            .get(&format!("{api}/namespaces/{namespace}/{kind}/{name}"))
    }

    /// The pods with a label.
    pub fn pods(&self, label: &str) -> Vec<Value> {
        let namespace = &self.name;
        let list = self
            .cluster
            .get(&format!(
                "/api/v1/namespaces/{namespace}/pods?labelSelector={label}"
            ))
            .expect("the pods of a namespace");
        list["items"].as_array().expect("a list").clone()
    }

    /// Whether each pod has a view of the node's files and processes of its own, unless it says otherwise.
    pub fn is_private(&self) -> bool {
        self.class != INSTALLED[0]
    }

    /// Makes a pod, and waits until its containers are ready.
    pub fn run(&self, pod: &Value) -> Value {
        self.apply(pod);
        self.ready(name(pod))
    }

    /// Waits until a pod's containers are ready.
    pub fn ready(&self, name: &str) -> Value {
        self.until(name, "is ready", |pod| {
            conditions(pod)
                .get("Ready")
                .is_some_and(|status| status == "True")
        })
    }

    /// Makes a pod, and waits until all its containers have ended.
    pub fn end(&self, pod: &Value) -> Value {
        self.apply(pod);
        self.ended(name(pod))
    }

    /// Waits until all of a pod's containers have ended.
    pub fn ended(&self, name: &str) -> Value {
        self.until(name, "ends", |pod| {
            matches!(
                pod["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed")
            )
        })
    }

    /// Waits for something of a pod.
    pub fn until(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("pod {name} {what}"), || {
            self.get("pods", name).filter(&condition)
        })
    }

    /// Deletes a pod, and waits until it is gone.
    pub fn delete(&self, name: &str) {
        self.kubectl(&["delete", "pod", name, "--wait=false"])
            .assert_success();
        self.gone(name);
    }

    /// Deletes a pod of runc's, and waits until it is gone.
    ///
    /// Where a hierarchy of version 2 is beside those of version 1, runc makes the pod's cgroup there too, and
    /// neither it nor the kubelet removes it.
    pub fn delete_of_runc(&self, name: &str) {
        let uid = self.get("pods", name).expect("a pod")["metadata"]["uid"].clone();
        self.delete(name);
        let left = format!("kubepods/besteffort/pod{}", uid.as_str().expect("a uid"));
        for hierarchy in leftovers::hierarchies() {
            let cgroup = hierarchy.join(self.cluster.node().marker()).join(&left);
            eventually("runc's cgroup can be removed", || {
                (fs::remove_dir(&cgroup).is_ok() || !cgroup.exists()).then_some(())
            });
        }
    }

    /// Waits until a pod is gone.
    pub fn gone(&self, name: &str) {
        eventually(&format!("pod {name} is gone"), || {
            self.get("pods", name).is_none().then_some(())
        });
    }

    /// What a container of a pod has said.
    pub fn log(&self, pod: &str) -> String {
        self.kubectl(&["logs", pod, "--all-containers"])
            .assert_success()
    }

    /// Waits until a pod has said this, and nothing else.
    pub fn until_said(&self, pod: &str, text: &str) {
        eventually(&format!("pod {pod} says {text:?}"), || {
            (self.log(pod) == text).then_some(())
        });
    }

    /// Runs a script in a pod's container `main`, and returns its output.
    #[track_caller]
    pub fn exec(&self, pod: &str, script: &str) -> String {
        self.try_exec(pod, script).assert_success()
    }

    /// Runs a script in a pod's container `main`.
    pub fn try_exec(&self, pod: &str, script: &str) -> Output {
        self.kubectl(&["exec", pod, "-c", "main", "--", "/bin/sh", "-c", script])
    }

    /// Runs `kubectl` in this namespace with something on its standard input.
    pub fn kubectl_fed(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.kubectl_command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start kubectl");
        let mut stdin = child.stdin.take().expect("its standard input");
        stdin.write_all(input.as_bytes()).expect("feed kubectl");
        drop(stdin);
        child
            .wait_with_output()
            .map(Output::from)
            .expect("wait for kubectl")
    }

    /// `kubectl` in this namespace, to be started.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.cluster.kubectl_command();
        command.args(["--namespace", &self.name]).args(args);
        command
    }

    /// A folder of the node for files of this test, which workloads see as it is.
    pub fn folder(&self) -> PathBuf {
        let folder = self.cluster.node().work().join(&self.name);
        fs::create_dir_all(&folder).expect("make a folder for a test");
        folder
    }

    /// Deletes the namespace with all that is in it, and waits until it is gone.
    pub fn remove(&self) {
        let name = &self.name;
        self.cluster
            .kubectl(&["delete", "namespace", name, "--wait=false"])
            .assert_success();
        eventually("the namespace is gone", || {
            self.cluster
                .get(&format!("/api/v1/namespaces/{name}"))
                .is_none()
                .then_some(())
        });
    }
}

/// Puts a runtime class where [`OURS`] is.
fn name_class(value: &mut Value, class: &str) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                if key == "runtimeClassName" && field == OURS {
                    *field = class.into();
                }
                name_class(field, class);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| name_class(item, class)),
        _ => {}
    }
}

/// The name of an object.
fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

/// How the first container of a pod ended: its code, the reason and the message.
pub fn end_of(pod: &Value) -> (i64, String, String) {
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        ended["exitCode"].as_i64().unwrap_or(-1),
        text(&ended["reason"]),
        text(&ended["message"]),
    )
}

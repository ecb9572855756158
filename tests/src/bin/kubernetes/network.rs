//! Services, names, and what a policy for the network needs.

use std::process::Command;

use reaper_tests::{
    ctr::Output,
    kubernetes::{NODE, RUNC, Space, eventually, pod},
};
use serde_json::{Value, json};

crate::tests!(
    service_is_reached_by_address_name_and_port_of_the_node,
    pods_of_a_set_have_names,
    traffic_between_pods_can_be_filtered_on_the_node,
);

/// A pod that serves its own name by HTTP, and is ready once it does.
fn server(name: &str, app: &str, seconds: u32) -> Value {
    let script = format!(
        "mkdir -p /tmp/$HOSTNAME; echo $HOSTNAME >/tmp/$HOSTNAME/page; \
         busybox httpd -p 8080 -h /tmp/$HOSTNAME; exec sleep {seconds}"
    );
    let mut server = pod(name, &script);
    server["metadata"]["labels"]["app"] = app.into();
    server["spec"]["containers"][0]["readinessProbe"] = json!({
        "httpGet": { "path": "/page", "port": 8080 }, "periodSeconds": 1, "timeoutSeconds": 20,
    });
    server
}

/// Asks a server at an address for its page. The limit is not wget's own: Debian's busybox crashes with that.
fn ask(address: &str) -> String {
    format!("busybox timeout 5 busybox wget -q -O - http://{address}/page")
}

/// What a server that is reached at an address says; nothing if none is.
fn page(address: &str) -> Option<String> {
    let output = Output::of(Command::new("/bin/sh").args(["-c", &ask(address)]));
    (output.code == 0).then_some(output.stdout)
}

/// The same, asked by a pod.
fn page_of(space: &Space<'_>, client: &str, address: &str) -> Option<String> {
    let output = space.try_exec(client, &ask(address));
    (output.code == 0).then_some(output.stdout)
}

/// Waits until a server says a word.
fn until_served(what: &str, word: &str, asked: impl Fn() -> Option<String>) {
    eventually(&format!("{what} is {word}"), || {
        (asked()? == format!("{word}\n")).then_some(())
    });
}

fn address_of(space: &Space<'_>, pod: &str) -> String {
    let pod = space.get("pods", pod).expect("a pod");
    pod["status"]["podIP"]
        .as_str()
        .expect("an address")
        .to_owned()
}

fn service_is_reached_by_address_name_and_port_of_the_node(space: &Space<'_>) {
    space.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": {
            "type": "NodePort", "clusterIP": "10.96.0.80", "selector": { "app": "web" },
            "ports": [{ "port": 80, "targetPort": 8080, "nodePort": 30080 }],
        },
    }));
    space.run(&server("first", "web", 1811));
    let mut contained = pod("contained", "exec sleep 1811");
    contained["spec"]["runtimeClassName"] = RUNC.into();
    space.run(&contained);
    space.run(&pod("client", "exec sleep 1811"));
    for client in ["client", "contained", "first"] {
        until_served(client, "first", || page_of(space, client, "10.96.0.80"));
    }
    until_served("the node's port", "first", || {
        page(&format!("{NODE}:30080"))
    });
    // By the names that resolv.conf completes, with the node's own resolver.
    let resolved = space.exec(
        "client",
        "getent ahostsv4 web | head -n 1; cat /etc/resolv.conf",
    );
    let name = &space.name;
    assert!(resolved.starts_with("10.96.0.80 "), "{resolved}");
    assert!(
        resolved.contains(&format!(
            "search {name}.svc.cluster.local svc.cluster.local cluster.local"
        )),
        "{resolved}"
    );
    let talk =
        "exec 3<>/dev/tcp/web/80; printf 'GET /page HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3 | tail -n 1";
    let said = space.kubectl(&["exec", "client", "--", "/bin/bash", "-c", talk]);
    assert_eq!(said.assert_success(), "first\n");
    // Another takes over as soon as the first is gone.
    space.run(&server("second", "web", 1811));
    space.delete("first");
    until_served("the service", "second", || {
        page_of(space, "client", "10.96.0.80")
    });
    // A pod in the node's network reaches it as well.
    let mut host = pod("host", "exec sleep 1811");
    host["spec"]["hostNetwork"] = true.into();
    space.run(&host);
    until_served("the service", "second", || {
        page_of(space, "host", "10.96.0.80")
    });
    space.delete_of_runc("contained");
}

fn pods_of_a_set_have_names(space: &Space<'_>) {
    space.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "set" },
        "spec": { "clusterIP": "None", "selector": { "app": "set" }, "ports": [{ "port": 8080 }] },
    }));
    let mut template = server("any", "set", 1812);
    template["spec"]
        .as_object_mut()
        .expect("a spec")
        .remove("restartPolicy");
    space.apply(&json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "set" },
        "spec": {
            "serviceName": "set", "replicas": 2, "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": { "app": "set" } },
            "template": { "metadata": { "labels": { "app": "set" } }, "spec": template["spec"] },
        },
    }));
    for name in ["set-0", "set-1"] {
        eventually(&format!("{name} is there"), || {
            space.get("pods", name).map(drop)
        });
        space.ready(name);
    }
    for (client, server) in [("set-0", "set-1"), ("set-1", "set-0")] {
        let script = format!("getent ahostsv4 {server}.set | head -n 1 | cut -d ' ' -f 1");
        let address = address_of(space, server);
        eventually("the other's name is known", || {
            let output = space.try_exec(client, &script);
            (output.stdout.trim() == address).then_some(())
        });
        until_served("the other", server, || {
            page_of(space, client, &format!("{address}:8080"))
        });
    }
}

fn traffic_between_pods_can_be_filtered_on_the_node(space: &Space<'_>) {
    space.run(&server("server", "server", 1813));
    let names: Vec<String> = ["server", "allowed", "denied"]
        .into_iter()
        .map(|name| {
            if name != "server" {
                space.run(&pod(name, "exec sleep 1813"));
            }
            space.exec(name, "readlink /proc/self/ns/net")
        })
        .collect();
    let node = std::fs::read_link("/proc/self/ns/net").expect("the node's network");
    assert!(
        names[0] != names[1] && names[1] != names[2] && names[0] != names[2],
        "{names:?}"
    );
    assert!(!names.contains(&format!("{}\n", node.display())));
    let address = format!("{}:8080", address_of(space, "server"));
    for client in ["allowed", "denied"] {
        until_served(client, "server", || page_of(space, client, &address));
    }
    // As what enforces a NetworkPolicy does: where the pod's packets come to the node.
    let from = address_of(space, "denied");
    let rule = |action: &str| {
        let args = [
            action, "FORWARD", "-s", &from, "-p", "tcp", "--dport", "8080", "-j", "REJECT",
        ];
        Output::of(Command::new("iptables").args(["--wait"]).args(args)).assert_success();
    };
    rule("-I");
    let denied = page_of(space, "denied", &address);
    let allowed = page_of(space, "allowed", &address);
    rule("-D");
    assert_eq!(denied, None);
    assert_eq!(allowed.as_deref(), Some("server\n"));
    assert_eq!(
        page_of(space, "denied", &address).as_deref(),
        Some("server\n")
    );
}

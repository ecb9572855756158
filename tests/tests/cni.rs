//! Pods behind networks that Debian's CNI plugins make.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::MetadataExt as _,
    time::Duration,
};

use reaper_tests::{
    Node, Options,
    cri::{
        Plugins, Pod, container,
        messages::{PortForwardRequest, PortMapping},
    },
    on_each_with,
    runtime::until,
    suite::busybox,
    websocket::Session,
};

/// Where pods serve.
const PORT: u16 = 8080;

/// A port of the node that leads to a pod's.
const HOST_PORT: u16 = 18080;

/// For what answers.
const PATIENCE: Duration = Duration::from_secs(30);

fn on_each(test: impl Fn(&Node)) {
    on_each_with(&Options::default().own_network(), test);
}

/// A pod whose only container serves its name.
fn serving(node: &Node, plugins: Plugins, name: &str, ports: Vec<PortMapping>) -> Server {
    let mut config = node.pod_config_behind(name, plugins);
    config.port_mappings = ports;
    let pod = until("the network's configuration is read", || {
        node.run_pod_of(config.clone()).ok()
    });
    let folder = node.work().join(name);
    fs::create_dir_all(&folder).expect("make a folder to serve");
    fs::write(folder.join("index.html"), format!("I am {name}")).expect("write a page");
    let (busybox, port) = (busybox(), PORT.to_string());
    let (program, folder) = (busybox.to_str(), folder.to_str());
    let command = [
        program.expect("text"),
        "httpd",
        "-f",
        "-p",
        &port,
        "-h",
        folder.expect("text"),
    ];
    let id = pod.start(&container(name, &command));
    let address = pod.status().network.expect("a network").ip;
    let server = Server { pod, id, address };
    until("it serves", || {
        (get(node, &server.address, PORT).ok()? == format!("I am {name}")).then_some(())
    });
    server
}

/// A pod that serves.
struct Server {
    pod: Pod,
    id: String,
    address: String,
}

impl Server {
    fn end(&self) {
        self.pod.stop();
        self.pod.remove();
    }

    /// What this pod gets of a server; nothing if it gets no answer.
    fn gets(&self, node: &Node, address: &str, port: u16) -> Option<String> {
        let script = format!(
            "exec 3<>/dev/tcp/{address}/{port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && exec cat <&3"
        );
        let command = ["/bin/bash", "-c", &script];
        let answer = node.cri().exec_sync(&self.id, &command, 0).expect("exec");
        let text = String::from_utf8(answer.stdout).expect("text");
        (answer.exit_code == 0).then(|| body(&text))
    }

    /// The network that a command in the container is in, and the devices that it has.
    fn network(&self, node: &Node) -> String {
        let script = "stat -Lc %i /proc/self/ns/net; ls /sys/class/net";
        let answer = node
            .cri()
            .exec_sync(&self.id, &["/bin/sh", "-c", script], 0);
        String::from_utf8(answer.expect("exec").stdout).expect("text")
    }
}

/// What the node gets of a server.
fn get(node: &Node, address: &str, port: u16) -> io::Result<String> {
    let address = SocketAddr::new(address.parse().expect("an address"), port);
    let mut stream = node.in_network(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(body(&answer))
}

/// What is behind the head of an answer.
fn body(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n");
    body.map(|(_, body)| body).unwrap_or_default().to_owned()
}

/// The network of a pod as containerd keeps it: that of its container's first process is the same.
fn network_of(node: &Node, server: &Server) -> u64 {
    let folder = node.dir().join("state/io.containerd.grpc.v1.cri/netns");
    let kept = fs::read_dir(folder).expect("the networks of pods");
    let kept: Vec<u64> = kept
        .map(|entry| {
            fs::metadata(entry.expect("an entry").path())
                .expect("a network")
                .ino()
        })
        .collect();
    let seen = server.network(node);
    let inode = seen
        .lines()
        .next()
        .expect("an inode")
        .parse()
        .expect("a number");
    assert!(kept.contains(&inode), "{inode} of {kept:?}");
    inode
}

#[test]
fn a_pod_behind_a_bridge_answers_the_node_other_pods_and_at_a_port_of_the_host() {
    on_each(|node| {
        let port = PortMapping {
            container_port: PORT.into(),
            host_port: HOST_PORT.into(),
            ..PortMapping::default()
        };
        let server = serving(node, Plugins::Bridge, "server", vec![port]);
        let client = serving(node, Plugins::Bridge, "client", Vec::new());
        let answers_all = || {
            let answer = |from: &str, got: Option<String>| {
                assert_eq!(got.as_deref(), Some("I am server"), "{from}");
            };
            answer("the node", get(node, &server.address, PORT).ok());
            answer("a pod", client.gets(node, &server.address, PORT));
            for host in ["127.0.0.1", Plugins::GATEWAY] {
                answer(host, get(node, host, HOST_PORT).ok());
            }
            let through_the_host = client.gets(node, Plugins::GATEWAY, HOST_PORT);
            answer("a pod by the host's port", through_the_host);
        };
        answers_all();
        let networks = [network_of(node, &server), network_of(node, &client)];
        assert_ne!(networks[0], networks[1]);
        let own = format!("{}\neth0\nlo\n", networks[0]);
        assert_eq!(server.network(node), own);

        node.stop_containerd();
        answers_all_but_pods(node, &server);
        node.start_containerd();
        answers_all();
        assert_eq!(server.network(node), own);
        // One that is added is in the pod's network, too.
        let script = "stat -Lc %i /proc/self/ns/net; exec sleep 1095";
        server
            .pod
            .on(node)
            .start(&container("added", &["/bin/sh", "-c", script]));
        let expected = format!("stdout F {}", networks[0]);
        until("it tells its network", || {
            (server.pod.log("added") == [expected.clone()]).then_some(())
        });

        server.pod.on(node).stop();
        let gone = get(node, Plugins::GATEWAY, HOST_PORT);
        assert!(gone.is_err(), "the host's port leads nowhere: {gone:?}");
        server.pod.on(node).remove();
        client.pod.on(node).stop();
        client.pod.on(node).remove();
    });
}

/// What needs no containerd.
fn answers_all_but_pods(node: &Node, server: &Server) {
    for (host, port) in [
        (server.address.as_str(), PORT),
        (Plugins::GATEWAY, HOST_PORT),
    ] {
        assert_eq!(
            get(node, host, port).expect("an answer"),
            "I am server",
            "{host}"
        );
    }
}

#[test]
fn a_port_of_a_pod_is_forwarded_from_its_own_network() {
    on_each(|node| {
        let server = serving(node, Plugins::Bridge, "server", Vec::new());
        let other = serving(node, Plugins::Bridge, "other", Vec::new());
        for (pod, name) in [(&server, "server"), (&other, "other")] {
            let request = PortForwardRequest {
                pod_sandbox_id: pod.pod.id.clone(),
                port: vec![PORT.into()],
            };
            let url = node.cri().port_forward_url(request).expect("an address");
            let url = format!("{url}?port={PORT}");
            let mut session = node.in_network(|| Session::open(&url));
            session.send(0, b"GET / HTTP/1.0\r\n\r\n");
            session.expect(0, &format!("I am {name}"));
        }
        server.end();
        other.end();
    });
}

#[test]
fn services_and_policies_in_the_nodes_tables_hold_for_pods() {
    const SERVICE: &str = "10.96.0.10";
    on_each(|node| {
        let server = serving(node, Plugins::Pairs, "server", Vec::new());
        let friend = serving(node, Plugins::Pairs, "friend", Vec::new());
        let stranger = serving(node, Plugins::Pairs, "stranger", Vec::new());
        // As kube-proxy does for a Service.
        for chain in ["PREROUTING", "OUTPUT"] {
            node.sh_in_network(&format!(
                "iptables -w -t nat -A {chain} -d {SERVICE} -p tcp --dport 80 -j DNAT --to {}:{PORT}",
                server.address
            ));
        }
        let answer = Some("I am server");
        assert_eq!(get(node, SERVICE, 80).ok().as_deref(), answer);
        for pod in [&friend, &stranger] {
            assert_eq!(pod.gets(node, SERVICE, 80).as_deref(), answer);
            assert_eq!(pod.gets(node, &server.address, PORT).as_deref(), answer);
        }
        // As a network policy is made: of what comes to the pod's device.
        let device = node.sh_in_network(&format!(
            "ip -o route get {} | sed -n 's/.* dev \\([^ ]*\\) .*/\\1/p'",
            server.address
        ));
        let rule = format!(
            "FORWARD -o {} -s {} -p tcp -j REJECT --reject-with tcp-reset",
            device.trim(),
            stranger.address
        );
        node.sh_in_network(&format!("iptables -w -I {rule}"));
        assert_eq!(stranger.gets(node, &server.address, PORT), None);
        assert_eq!(stranger.gets(node, SERVICE, 80), None);
        assert_eq!(
            stranger.gets(node, &friend.address, PORT).as_deref(),
            Some("I am friend")
        );
        assert_eq!(friend.gets(node, SERVICE, 80).as_deref(), answer);
        node.sh_in_network(&format!("iptables -w -D {rule}"));
        assert_eq!(stranger.gets(node, SERVICE, 80).as_deref(), answer);
        for pod in [&server, &friend, &stranger] {
            pod.end();
        }
    });
}

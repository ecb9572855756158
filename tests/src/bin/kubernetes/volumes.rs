//! Volumes, as the kubelet makes and updates them.

use std::fs;

use nix::{
    mount::{MsFlags, mount, umount},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use reaper_tests::kubernetes::{Space, eventually, pod};
use serde_json::{Value, json};

crate::tests!(
    config_map_is_updated_while_it_is_mounted,
    secret_and_downward_api_and_token_are_projected,
    empty_directories_are_on_disk_or_in_memory,
    paths_of_the_host_are_of_their_types,
    parts_of_volumes_are_mounted_within_each_other,
    objects_are_the_environment,
    names_are_resolved_as_the_pod_says,
    mounts_are_propagated_both_ways,
    pod_over_the_size_of_its_volume_is_evicted,
);

/// Gives a pod volumes, and its container mounts of them.
fn with_volumes(mut pod: Value, volumes: Value, mounts: Value) -> Value {
    pod["spec"]["volumes"] = volumes;
    pod["spec"]["containers"][0]["volumeMounts"] = mounts;
    pod
}

fn config_map(space: &Space<'_>, color: &str) {
    space.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" },
        "data": { "color": color, "size": "7" },
    }));
}

fn config_map_is_updated_while_it_is_mounted(space: &Space<'_>) {
    config_map(space, "red");
    let pod = with_volumes(
        pod("reads", "exec sleep 1761"),
        json!([{ "name": "settings", "configMap": { "name": "settings", "defaultMode": 0o440 } }]),
        json!([{ "name": "settings", "mountPath": "/etc/settings" }]),
    );
    space.run(&pod);
    assert_eq!(
        space.exec(
            "reads",
            "cat /etc/settings/color /etc/settings/size; ls /etc/settings"
        ),
        "red7color\nsize\n"
    );
    let refused = space.try_exec("reads", "echo x >/etc/settings/color");
    assert!(
        refused.code != 0 && refused.text().contains("Read-only file system"),
        "{refused:?}"
    );
    assert!(
        !std::path::Path::new("/etc/settings").exists(),
        "the node has nothing there"
    );
    config_map(space, "blue");
    eventually("the pod reads the new color", || {
        (space.exec("reads", "cat /etc/settings/color") == "blue").then_some(())
    });
}

fn secret_and_downward_api_and_token_are_projected(space: &Space<'_>) {
    space.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "secret" },
        "stringData": { "word": "swordfish" },
    }));
    let sources = json!([
        { "secret": { "name": "secret", "items": [{ "key": "word", "path": "deep/word" }] } },
        { "downwardAPI": { "items": [
            { "path": "name", "fieldRef": { "fieldPath": "metadata.name" } },
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        ] } },
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 600, "audience": "reaper" } },
    ]);
    let pod = with_volumes(
        pod("projects", "exec sleep 1762"),
        json!([
            { "name": "secret", "secret": { "secretName": "secret", "defaultMode": 0o400 } },
            { "name": "all", "projected": { "sources": sources } },
        ]),
        json!([
            { "name": "secret", "mountPath": "/srv/secret", "readOnly": true },
            { "name": "all", "mountPath": "/srv/all" },
        ]),
    );
    space.run(&pod);
    let script = "cd /srv; cat secret/word all/deep/word; echo; stat -L -c %a secret/word; cat all/name; echo; \
                  cat all/labels; echo; stat -f -c %T secret; tr . '\\n' <all/token | wc -l";
    let said = space.exec("projects", script);
    assert_eq!(
        said,
        "swordfishswordfish\n400\nprojects\nname=\"projects\"\ntmpfs\n2\n"
    );
    // The account's own, where clients in pods look for it.
    let script = "cd /var/run/secrets/kubernetes.io/serviceaccount; ls; cat namespace";
    assert_eq!(
        space.exec("projects", script),
        format!("ca.crt\nnamespace\ntoken\n{}", space.name)
    );
    space
        .kubectl(&["label", "pod", "projects", "color=green"])
        .assert_success();
    eventually("the pod reads its new label", || {
        space
            .exec("projects", "cat /srv/all/labels")
            .contains("color=\"green\"")
            .then_some(())
    });
}

fn empty_directories_are_on_disk_or_in_memory(space: &Space<'_>) {
    let pod = with_volumes(
        pod("writes", "exec sleep 1763"),
        json!([
            { "name": "disk", "emptyDir": {} },
            { "name": "memory", "emptyDir": { "medium": "Memory" } },
        ]),
        json!([
            { "name": "disk", "mountPath": "/opt/new/disk" },
            { "name": "memory", "mountPath": "/cache" },
        ]),
    );
    space.run(&pod);
    let script = "echo 1 >/opt/new/disk/file; echo 2 >/cache/file; cat /opt/new/disk/file /cache/file; \
                  stat -f -c %T /cache; stat -c %a /opt/new/disk";
    assert_eq!(space.exec("writes", script), "1\n2\ntmpfs\n777\n");
    for path in ["/opt/new", "/cache"] {
        assert!(
            !std::path::Path::new(path).exists(),
            "the node has no {path}"
        );
    }
}

fn paths_of_the_host_are_of_their_types(space: &Space<'_>) {
    let folder = space.folder();
    fs::create_dir(folder.join("directory")).expect("make a directory");
    fs::write(folder.join("file"), "content\n").expect("write a file");
    let socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).expect("listen");
    mknod(
        &folder.join("block"),
        SFlag::S_IFBLK,
        Mode::S_IRUSR,
        // The first loop device, which nobody opens.
        makedev(7, 0),
    )
    .expect("make a device");
    let kinds = [
        ("any", ""),
        ("block", "BlockDevice"),
        ("directory", "Directory"),
        ("file", "File"),
        ("socket", "Socket"),
        ("new-directory", "DirectoryOrCreate"),
        ("new-file", "FileOrCreate"),
    ];
    fs::write(folder.join("any"), "").expect("write a file");
    let mut volumes: Vec<Value> = kinds
        .iter()
        .map(|(name, kind)| json!({ "name": name, "hostPath": { "path": folder.join(name), "type": kind } }))
        .collect();
    let mut mounts: Vec<Value> = kinds
        .iter()
        .map(|(name, _)| json!({ "name": name, "mountPath": format!("/srv/host/{name}") }))
        .collect();
    volumes
        .push(json!({ "name": "null", "hostPath": { "path": "/dev/null", "type": "CharDevice" } }));
    mounts.push(json!({ "name": "null", "mountPath": "/srv/host/null" }));
    space.run(&with_volumes(
        pod("hosted", "exec sleep 1764"),
        volumes.into(),
        mounts.into(),
    ));
    let script = "cd /srv/host; for name in *; do stat -c '%n %F' $name; done; cat file; \
                  echo made >directory/inside; echo made >new-directory/inside; echo made >new-file; echo lost >null";
    assert_eq!(
        space.exec("hosted", script),
        "any regular empty file\nblock block special file\ndirectory directory\nfile regular file\nnew-directory directory\nnew-file regular empty file\n\
         null character special file\nsocket socket\ncontent\n"
    );
    for name in ["directory/inside", "new-directory/inside", "new-file"] {
        assert_eq!(
            fs::read_to_string(folder.join(name)).expect("what the pod wrote"),
            "made\n",
            "{name}"
        );
    }
    drop(socket);

    let wrong = with_volumes(
        pod("wrong", "true"),
        json!([{ "name": "no", "hostPath": { "path": folder.join("nothing"), "type": "Directory" } }]),
        json!([{ "name": "no", "mountPath": "/srv/no" }]),
    );
    space.apply(&wrong);
    eventually("the missing directory is told", || {
        let told = space
            .kubectl(&["describe", "pod", "wrong"])
            .assert_success();
        told.contains("is not a directory").then_some(())
    });
}

fn parts_of_volumes_are_mounted_within_each_other(space: &Space<'_>) {
    config_map(space, "red");
    let mut pod = with_volumes(
        pod("nested", "exec sleep 1765"),
        json!([
            { "name": "own", "emptyDir": {} },
            { "name": "other", "emptyDir": {} },
            { "name": "settings", "configMap": { "name": "settings" } },
        ]),
        json!([
            { "name": "own", "mountPath": "/srv/outer" },
            { "name": "other", "mountPath": "/srv/outer/inner" },
            { "name": "settings", "mountPath": "/srv/outer/inner/size", "subPath": "size" },
            { "name": "own", "mountPath": "/srv/part", "subPath": "deep/part" },
            { "name": "own", "mountPath": "/srv/named", "subPathExpr": "of/$(NAME)" },
            { "name": "settings", "mountPath": "/etc/color.conf", "subPath": "color" },
        ]),
    );
    pod["spec"]["containers"][0]["env"] =
        json!([{ "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }]);
    space.run(&pod);
    let script = "cd /srv; echo a >outer/a; echo b >outer/inner/b; echo c >part/c; echo d >named/d; \
                  cat outer/inner/size /etc/color.conf; echo; cd outer; find . -type f | sort";
    assert_eq!(
        space.exec("nested", script),
        "7red\n./a\n./deep/part/c\n./inner/b\n./inner/size\n./of/nested/d\n"
    );
    assert!(
        !std::path::Path::new("/etc/color.conf").exists(),
        "the node has no such file"
    );
}

fn objects_are_the_environment(space: &Space<'_>) {
    config_map(space, "red");
    let mut pod = pod("told", "echo $color $SIZE $IP $CPU");
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "2" } });
    pod["spec"]["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "settings" } }]);
    pod["spec"]["containers"][0]["env"] = json!([
        { "name": "SIZE", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "size" } } },
        { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } },
        { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
    ]);
    space.end(&pod);
    assert_eq!(space.log("told"), "red 7 10.88.0.1 2\n");
}

fn names_are_resolved_as_the_pod_says(space: &Space<'_>) {
    let script = "cat /etc/resolv.conf; grep example /etc/hosts; cat /etc/hostname; \
                  getent hosts other.example | tr -s ' '";
    let mut pod = pod("names", script);
    pod["spec"]["dnsPolicy"] = "None".into();
    pod["spec"]["dnsConfig"] = json!({ "nameservers": ["192.0.2.1"], "searches": ["svc.example"] });
    pod["spec"]["hostAliases"] = json!([{ "ip": "192.0.2.2", "hostnames": ["other.example"] }]);
    pod["spec"]["hostname"] = "chosen".into();
    space.end(&pod);
    assert_eq!(
        space.log("names"),
        "search svc.example\nnameserver 192.0.2.1\n192.0.2.2\tother.example\nchosen\n192.0.2.2 other.example\n"
    );
}

fn mounts_are_propagated_both_ways(space: &Space<'_>) {
    let folder = space.folder();
    let mut pod = with_volumes(
        pod("mounts", "exec sleep 1766"),
        json!([{ "name": "host", "hostPath": { "path": folder } }]),
        json!([{ "name": "host", "mountPath": "/srv/host", "mountPropagation": "Bidirectional" }]),
    );
    pod["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    space.run(&pod);
    space.exec(
        "mounts",
        "mkdir /srv/host/pods && mount -t tmpfs pods /srv/host/pods && echo 1 >/srv/host/pods/file",
    );
    assert_eq!(
        fs::read_to_string(folder.join("pods/file")).expect("what the pod has mounted"),
        "1\n"
    );
    let nodes = folder.join("nodes");
    fs::create_dir(&nodes).expect("make a mount point");
    mount(
        Some("nodes"),
        &nodes,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .expect("mount a filesystem");
    fs::write(nodes.join("file"), "2\n").expect("write a file there");
    assert_eq!(space.exec("mounts", "cat /srv/host/nodes/file"), "2\n");
    umount(&nodes).expect("unmount it");
    space.exec("mounts", "umount /srv/host/pods && rmdir /srv/host/nodes");
    assert!(
        !folder.join("pods/file").exists(),
        "the pod has unmounted it"
    );
}

fn pod_over_the_size_of_its_volume_is_evicted(space: &Space<'_>) {
    let script = "head -c 8000000 /dev/zero >/srv/own/file; exec sleep 1767";
    space.apply(&with_volumes(
        pod("greedy", script),
        json!([{ "name": "own", "emptyDir": { "sizeLimit": "1Mi" } }]),
        json!([{ "name": "own", "mountPath": "/srv/own" }]),
    ));
    let evicted = space.ended("greedy");
    assert_eq!(evicted["status"]["reason"], "Evicted", "{evicted}");
}

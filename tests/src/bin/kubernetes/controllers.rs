//! Pods that others make: jobs, daemons, deployments, sets.

use reaper_tests::kubernetes::{RUNC, Space, eventually, pod};
use serde_json::{Value, json};

crate::tests!(
    job_runs_to_its_completions,
    failed_job_is_tried_again,
    cron_job_makes_a_job_every_minute,
    daemon_set_runs_on_the_node,
    deployment_is_rolled_over_and_back,
    stateful_set_is_made_in_order,
    namespace_is_deleted_with_everything_in_it,
    runc_and_reaper_run_side_by_side,
    as_many_pods_run_as_the_kubelet_takes,
);

/// A template for pods with a label that run a script.
fn template(label: &str, script: &str) -> Value {
    let mut pod = pod("any", script);
    pod["spec"]
        .as_object_mut()
        .expect("a spec")
        .remove("restartPolicy");
    json!({ "metadata": { "labels": { "app": label } }, "spec": pod["spec"] })
}

/// Whether a number of an object's status is this.
fn counts(object: &Value, field: &str, count: i64) -> bool {
    object["status"][field].as_i64().unwrap_or(0) == count
}

fn job_runs_to_its_completions(space: &Space<'_>) {
    let mut template = template("job", "echo done");
    template["spec"]["restartPolicy"] = "Never".into();
    space.apply(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "job" },
        "spec": { "completions": 3, "parallelism": 2, "template": template },
    }));
    eventually("the job is complete", || {
        let job = space.get_of("/apis/batch/v1", "jobs", "job")?;
        counts(&job, "succeeded", 3).then_some(())
    });
    let logs = space.kubectl(&["logs", "-l", "app=job"]).assert_success();
    assert_eq!(logs, "done\ndone\ndone\n");
}

fn failed_job_is_tried_again(space: &Space<'_>) {
    let mut template = template("job", "exit 3");
    template["spec"]["restartPolicy"] = "Never".into();
    space.apply(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "job" },
        "spec": { "backoffLimit": 1, "template": template },
    }));
    eventually("the job has failed", || {
        let job = space.get_of("/apis/batch/v1", "jobs", "job")?;
        let failed = job["status"]["conditions"][0]["reason"] == "BackoffLimitExceeded";
        (failed && counts(&job, "failed", 2)).then_some(())
    });
}

fn cron_job_makes_a_job_every_minute(space: &Space<'_>) {
    let mut template = template("cron", "echo tick");
    template["spec"]["restartPolicy"] = "Never".into();
    space.apply(&json!({
        "apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": { "name": "cron" },
        "spec": { "schedule": "* * * * *", "jobTemplate": { "spec": { "template": template } } },
    }));
    eventually("a job has run", || {
        let ended = |pod: &Value| pod["status"]["phase"] == "Succeeded";
        space.pods("app=cron").iter().any(ended).then_some(())
    });
    let logs = space.kubectl(&["logs", "-l", "app=cron"]).assert_success();
    assert!(logs.starts_with("tick\n"), "{logs}");
}

fn daemon_set_runs_on_the_node(space: &Space<'_>) {
    space.apply(&json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "daemon" },
        "spec": {
            "selector": { "matchLabels": { "app": "daemon" } },
            "template": template("daemon", "exec sleep 1781"),
        },
    }));
    eventually("the daemon runs", || {
        let set = space.get_of("/apis/apps/v1", "daemonsets", "daemon")?;
        counts(&set, "numberReady", 1).then_some(())
    });
    // A pod that is deleted is made again.
    let [first] = space.pods("app=daemon").try_into().expect("one pod");
    let first = first["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    space.delete(&first);
    eventually("another runs", || {
        let set = space.get_of("/apis/apps/v1", "daemonsets", "daemon")?;
        counts(&set, "numberReady", 1).then_some(())
    });
}

fn deployment_is_rolled_over_and_back(space: &Space<'_>) {
    let deployment = |version: &str| {
        let mut template = template("web", &format!("echo {version}; exec sleep 1782"));
        template["spec"]["containers"][0]["readinessProbe"] = json!({ "exec": { "command": ["/bin/true"] }, "periodSeconds": 1, "timeoutSeconds": 20 });
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
            "spec": {
                "replicas": 3,
                "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
                "selector": { "matchLabels": { "app": "web" } },
                "template": template,
            },
        })
    };
    let rolled = |version: &str| {
        eventually(&format!("all are of {version}"), || {
            let web = space.get_of("/apis/apps/v1", "deployments", "web")?;
            let observed = web["status"]["observedGeneration"] == web["metadata"]["generation"];
            let all = ["replicas", "updatedReplicas", "availableReplicas"];
            (observed && all.iter().all(|field| counts(&web, field, 3))).then_some(())
        });
        eventually("the old ones are gone", || {
            (space.pods("app=web").len() == 3).then_some(())
        });
        let logs = space.kubectl(&["logs", "-l", "app=web"]).assert_success();
        assert_eq!(logs, format!("{version}\n").repeat(3));
    };
    space.apply(&deployment("first"));
    rolled("first");
    space.apply(&deployment("second"));
    rolled("second");
    space
        .kubectl(&["rollout", "undo", "deployment/web"])
        .assert_success();
    rolled("first");
    space
        .kubectl(&["scale", "deployment/web", "--replicas=0"])
        .assert_success();
    eventually("none is left", || {
        space.pods("app=web").is_empty().then_some(())
    });
}

fn stateful_set_is_made_in_order(space: &Space<'_>) {
    space.apply(&json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "set" },
        "spec": {
            "serviceName": "set", "replicas": 2,
            "selector": { "matchLabels": { "app": "set" } },
            "template": template("set", "cat /etc/hostname; exec sleep 1783"),
        },
    }));
    let ready = || {
        eventually("both run", || {
            let set = space.get_of("/apis/apps/v1", "statefulsets", "set")?;
            counts(&set, "readyReplicas", 2).then_some(())
        });
    };
    ready();
    let started = |name: &str| {
        let pod = space.get("pods", name).expect("a pod of the set");
        pod["status"]["startTime"]
            .as_str()
            .expect("a time")
            .to_owned()
    };
    assert!(
        started("set-0") <= started("set-1"),
        "the first is there before the second is made"
    );
    assert_eq!(space.log("set-1"), "set-1\n");
    let old = space.get("pods", "set-1").expect("a pod")["metadata"]["uid"].clone();
    space
        .kubectl(&["delete", "pod", "set-1", "--wait=false"])
        .assert_success();
    space.until("set-1", "is another one", |pod| {
        pod["metadata"]["uid"] != old
    });
    ready();
}

fn namespace_is_deleted_with_everything_in_it(space: &Space<'_>) {
    space.run(&pod("alone", "exec sleep 1784"));
    space.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "some" },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": { "app": "some" } },
            "template": template("some", "exec sleep 1784"),
        },
    }));
    let mut crashing = pod("crashing", "exit 1");
    crashing["spec"]["restartPolicy"] = "Always".into();
    space.apply(&crashing);
    // A pod that is just being made, too: its end may come at any step of its start.
    eventually("the first of some runs", || {
        (!space.pods("app=some").is_empty()).then_some(())
    });
    // What every test does at its end: that nothing is left is seen there.
}

fn runc_and_reaper_run_side_by_side(space: &Space<'_>) {
    let tool = format!(
        "test -e {} && echo in the image || echo on the node",
        reaper_tests::image::TOOL
    );
    let mut contained = pod("contained", &format!("{tool}; exec sleep 1785"));
    contained["spec"]["runtimeClassName"] = RUNC.into();
    let ours = pod("ours", &format!("{tool}; exec sleep 1785"));
    space.apply(&contained);
    space.apply(&ours);
    for (name, place) in [("contained", "in the image\n"), ("ours", "on the node\n")] {
        space.ready(name);
        assert_eq!(space.log(name), place);
        assert_eq!(space.exec(name, "echo $HOSTNAME"), format!("{name}\n"));
    }
    // They reach each other by the network of pods.
    let address = |name: &str| {
        let pod = space.get("pods", name).expect("a pod");
        pod["status"]["podIP"]
            .as_str()
            .expect("an address")
            .to_owned()
    };
    assert_ne!(address("contained"), address("ours"));
    space.delete_of_runc("contained");
    assert_eq!(space.exec("ours", "echo goes on"), "goes on\n");
}

fn as_many_pods_run_as_the_kubelet_takes(space: &Space<'_>) {
    const MOST: i64 = 110;
    let many = |replicas: i64| {
        space.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "many" },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": "many" } },
                "template": template("many", "exec sleep 1786"),
            },
        }));
    };
    let available = || {
        let many = space.get_of("/apis/apps/v1", "deployments", "many")?;
        Some(many["status"]["availableReplicas"].as_i64().unwrap_or(0))
    };
    many(MOST + 1);
    for some in [25, 50, 75, 100, MOST] {
        eventually(&format!("{some} run"), || {
            (available()? >= some).then_some(())
        });
    }
    let waits = |pod: &Value| pod.to_string().contains("Too many pods");
    eventually("one has no place", || {
        let pods = space.pods("app=many");
        (pods.iter().filter(|pod| waits(pod)).count() == 1).then_some(())
    });
    assert_eq!(available(), Some(MOST));
    // By steps, too: each of them may take as long as anything else.
    many(50);
    eventually("most are gone", || {
        (space.pods("app=many").len() == 50).then_some(())
    });
    many(0);
    eventually("all are gone", || {
        space.pods("app=many").is_empty().then_some(())
    });
}

//! Many containers at once, and what is left of them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use reaper_tests::{
    api::Streams, containerd::is_yardstick, cri::container, on_each, runtime::until, spec::Workload,
};

const MANY: usize = 300;
const AT_A_TIME: usize = 16;

#[test]
fn three_hundred_concurrent_containers_leave_nothing() {
    on_each(|node| {
        let events = node.events();
        let workload = Workload::new(&["/bin/sleep", "1041"]);
        let id = |number: usize| node.name(&format!("n{number}"));
        let containerd = node.containerd().expect("containerd runs");
        each(MANY, |number| {
            let out = node.fifo(&format!("out{number}"));
            node.run(
                &format!("n{number}"),
                &workload,
                &Streams::default().stdout(out),
            );
        });
        each(MANY, |number| {
            let state = node.api().state(&id(number), "").expect("state");
            assert_eq!(state.status().as_str_name(), "RUNNING");
        });
        each(MANY, |number| {
            assert_eq!(node.destroy(&id(number)).code, 137);
        });
        each(MANY, |number| {
            let topics = events.topics_of(&id(number));
            assert_eq!(
                topics,
                [
                    "/tasks/create",
                    "/tasks/start",
                    "/tasks/exit",
                    "/tasks/delete"
                ]
            );
        });
        assert!(containerd.is_alive());
    });
}

#[test]
fn shim_keeps_nothing_of_removed_containers() {
    on_each(|node| {
        let pod = node.run_pod("crowded");
        let [shim] = node.shims().try_into().expect("one shim");
        let cycle = |number: usize| {
            let id = pod.start(&container(&format!("c{number}"), &["/bin/echo", "hello"]));
            assert_eq!(node.cri().exited(&id).exit_code, 0);
            node.cri().remove(&id).expect("remove what has exited");
        };
        // What is made once, on first use, is no leak.
        cycle(0);
        let before = shim.figures();
        each(60, |number| cycle(number + 1));
        if !is_yardstick() {
            until("the shim holds what it held before", || {
                let now = shim.figures();
                (now.descriptors == before.descriptors && now.threads <= before.threads)
                    .then_some(())
            });
        }
        pod.stop();
        pod.remove();
    });
}

/// Calls `act` with each number below `count`, some at a time.
fn each(count: usize, act: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(number) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&number| number < count)
                {
                    act(number);
                }
            });
        }
    });
}

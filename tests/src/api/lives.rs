//! What most tests do with a container, in one call each.

use super::{Code, Exit, Streams};
use crate::{Node, runtime::until, spec::Workload};

impl Node {
    /// Makes a container and its task, created and not started. `name` is made unique by
    /// [`Node::name`]; the id is returned.
    pub fn create(&self, name: &str, workload: &Workload, streams: &Streams) -> String {
        let id = self.name(name);
        self.api()
            .create_container(self, &id, workload)
            .expect("make a container");
        let created = self.api().create_task(self, &id, workload, streams);
        created.unwrap_or_else(|status| panic!("create a task of {id}: {status}"));
        id
    }

    /// [`create`](Self::create) and start.
    pub fn run(&self, name: &str, workload: &Workload, streams: &Streams) -> String {
        let id = self.create(name, workload, streams);
        self.api()
            .start(&id, "")
            .unwrap_or_else(|status| panic!("start {id}: {status}"));
        id
    }

    /// Deletes a task that has ended, and its container.
    pub fn delete(&self, id: &str) -> Exit {
        let api = self.api();
        let exit = api
            .delete_task(id)
            .unwrap_or_else(|status| panic!("delete {id}: {status}"));
        api.delete_container(id).expect("delete a container");
        exit
    }

    /// Waits until a task is gone by containerd's own doing, and deletes its container.
    pub fn gone(&self, id: &str) {
        until("its task is gone", || {
            // Until containerd has cleaned up it may know the task still, without a shim.
            match self.api().delete_task(id) {
                Err(status) if status.code() == Code::NotFound => Some(()),
                _ => None,
            }
        });
        let deleted = self.api().delete_container(id);
        deleted.expect("delete the container");
    }

    /// Kills a task with SIGKILL, waits for its end, and deletes it and its container.
    pub fn destroy(&self, id: &str) -> Exit {
        let waiting = self.api().wait(id, "");
        // It may have ended, and then there is nothing to kill.
        let _ = self.api().kill(id, "", 9);
        waiting.finish().expect("wait for a killed task");
        self.delete(id)
    }
}

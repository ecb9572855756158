//! The published contract, on the host.

use reaper_exec::{
    HostExecutor,
    conformance::{self, Subject},
};
use reaper_state::StateRoot;

use crate::rig::{Rig, cases};

cases! {
    the_host_executor_keeps_the_contract,
}

async fn the_host_executor_keeps_the_contract(_rig: &Rig) {
    conformance::run(|| {
        let root = tempfile::tempdir().unwrap();
        let executor = HostExecutor::new(StateRoot::new(root.path()));
        Subject::new(executor, root.path()).keeping(root)
    })
    .await;
}

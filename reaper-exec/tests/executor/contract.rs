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
        let state = StateRoot::new(root.path());
        let open = move || HostExecutor::new(state.clone());
        Subject::new(open(), root.path())
            .reopening(open)
            .keeping(root)
    })
    .await;
}

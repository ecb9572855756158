//! The published contract, by real containers.

use reaper_exec::{
    HostExecutor, OciExecutor,
    conformance::{self, Subject},
};
use reaper_state::StateRoot;

use crate::{
    bundle,
    rig::{Rig, cases},
};

cases! {
    oci_executor_keeps_the_contract,
}

async fn oci_executor_keeps_the_contract(rig: &Rig) {
    let runtime = rig.runtime;
    let cgroup = rig.cgroup("contract");
    conformance::run(|| {
        let root = tempfile::tempdir().unwrap();
        let bundles = tempfile::tempdir().unwrap();
        let state = StateRoot::new(root.path());
        let open = move || OciExecutor::new(HostExecutor::new(state.clone()), runtime);
        let (cgroup, folder) = (cgroup.clone(), bundles.path().join("bundle"));
        Subject::new(open(), root.path())
            .reopening(open)
            .updating_in_parts()
            .in_bundles(move |process| bundle::write(&folder, &bundle::spec(process, &cgroup)))
            .keeping((root, bundles))
    })
    .await;
}

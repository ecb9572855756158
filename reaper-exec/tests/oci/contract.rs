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
        let executor = OciExecutor::new(HostExecutor::new(StateRoot::new(root.path())), runtime);
        let (cgroup, folder) = (cgroup.clone(), bundles.path().join("bundle"));
        Subject::new(executor, root.path())
            .in_bundles(move |process| bundle::write(&folder, &bundle::spec(process, &cgroup)))
            .keeping((root, bundles))
    })
    .await;
}

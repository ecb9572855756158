//! A shim's own API, without containerd in between.

use std::{fs, time::Duration};

use containerd_shim_protos::{
    shim_async::TaskClient,
    ttrpc::{asynchronous::Client, context},
};
use serde_json::Value;

use crate::{
    Node,
    runtime::{LIMIT, within},
};

/// Where a shim listens, for example `unix:///run/…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimAddress(pub String);

impl Node {
    /// Where the shim of a container listens, as it told containerd.
    pub fn shim_address(&self, namespace: &str, id: &str) -> ShimAddress {
        let bundle = self.bundles(namespace).join(id);
        if let Ok(address) = fs::read_to_string(bundle.join("address")) {
            return ShimAddress(address.trim().to_owned());
        }
        let text = fs::read_to_string(bundle.join("bootstrap.json")).expect("a shim's address");
        let bootstrap: Value = serde_json::from_str(&text).expect("a bootstrap.json");
        ShimAddress(
            bootstrap["address"]
                .as_str()
                .expect("an address")
                .to_owned(),
        )
    }

    /// A client of the shim of a container.
    pub fn shim(&self, namespace: &str, id: &str) -> TaskClient {
        let ShimAddress(address) = self.shim_address(namespace, id);
        let connecting = Client::connect(&address);
        TaskClient::new(within("connect to a shim", connecting).expect("connect to a shim"))
    }
}

/// A context for a call that is given up when it takes too long.
pub fn bounded() -> context::Context {
    let limit = i64::try_from(Duration::as_nanos(&LIMIT)).unwrap_or(i64::MAX);
    context::with_timeout(limit)
}

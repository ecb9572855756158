//! The whole of a bundle's document, in the types of the crate oci-spec.

use oci_spec::runtime as oci;
use serde_json::{Map, Value, json};

use super::Bundle;
use crate::{
    error::{Error, Origin},
    json,
};

impl Bundle {
    /// The whole document, for executors that make real containers. What OCI demands and the
    /// document lacks has a default: the root is `rootfs`, the user 0:0, the directory `/`.
    ///
    /// It is parsed on each call, and not before: a part that only they need and that is broken
    /// is no reason to refuse a workload that runs on the host.
    ///
    /// # Errors
    /// A part of the document is not what OCI demands.
    pub fn spec(&self) -> Result<oci::Spec, Error> {
        let origin = Origin::File(self.path.join("config.json"));
        let mut document = json::parse(&self.json, &origin)?;
        if let Value::Object(document) = &mut document {
            fill_defaults(document);
        }
        serde_path_to_error::deserialize(document).map_err(|error| Error::Schema {
            origin,
            at: error.path().to_string(),
            problem: error.inner().to_string(),
        })
    }
}

fn fill_defaults(document: &mut Map<String, Value>) {
    default(document, "ociVersion", || json!("1.0.2"));
    default(document, "root", || json!({"path": "rootfs"}));
    if let Some(Value::Object(process)) = document.get_mut("process") {
        default(process, "cwd", || json!("/"));
        default(process, "user", || json!({}));
        if let Some(Value::Object(user)) = process.get_mut("user") {
            default(user, "uid", || json!(0));
            default(user, "gid", || json!(0));
        }
    }
}

fn default(object: &mut Map<String, Value>, key: &str, value: impl FnOnce() -> Value) {
    let entry = object.entry(key).or_insert(Value::Null);
    if entry.is_null() {
        *entry = value();
    }
}

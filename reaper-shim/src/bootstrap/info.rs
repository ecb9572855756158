//! What `-info` tells.

use containerd_shim_protos::{
    protobuf::{Message, MessageField},
    types::introspection::{RuntimeInfo, RuntimeVersion},
};

use crate::{Error, Result};

/// Encodes who we are, as containerd 2.x asks.
pub(super) fn encode(name: &str, version: &str) -> Result<Vec<u8>> {
    RuntimeInfo {
        name: name.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: version.to_owned(),
            ..RuntimeVersion::default()
        }),
        ..RuntimeInfo::default()
    }
    .write_to_bytes()
    .map_err(|source| Error::Encode {
        message: "the runtime's info",
        source,
    })
}

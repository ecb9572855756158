//! What is wrong with a container's folder.

use reaper_spec::ContainerId;

use crate::{ContainerDir, Error};

pub(super) fn corrupt(id: &ContainerId, dir: &ContainerDir, reason: &str) -> Error {
    Error::Corrupt {
        id: id.clone(),
        path: dir.state_file(),
        reason: reason.to_owned(),
    }
}

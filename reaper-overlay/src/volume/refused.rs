//! Why the kernel refused to open a volume for an ordinary user.

use std::path::Path;

use rustix::io::Errno;

use super::{
    open::{MAKE_FILESYSTEM, OPEN_SOURCE, SET_OPTIONS},
    request::MountRequest,
};
use crate::{
    contract::Error,
    mount::{denied::explain, interface::Recursion},
};

/// Names what the kernel refused, or the setting of the machine that is the reason.
pub(super) fn explain_refusal(error: Error, requests: &[MountRequest]) -> Error {
    let Error::Helper {
        operation,
        path,
        source,
    } = &error
    else {
        return explain(error);
    };
    let errno = Errno::from_io_error(source).unwrap_or(Errno::IO);
    let to = |is_it: &dyn Fn(&MountRequest) -> bool| requests.iter().find(|request| is_it(request));
    let what = match (operation.as_str(), errno) {
        (OPEN_SOURCE, Errno::INVAL) => to(&|request| is_bind_alone(request, path)).map(|request| {
            format!(
                "the mount of {} on {} without what is mounted below it (rbind takes that along)",
                path.display(),
                request.destination.display()
            )
        }),
        (MAKE_FILESYSTEM, Errno::PERM | Errno::ACCESS) => {
            to(&|request| request.mount.destination == *path).map(|request| {
                let kind = request.mount.typ.as_deref().unwrap_or_default();
                format!("the {kind} filesystem on {}", path.display())
            })
        }
        (SET_OPTIONS, Errno::PERM) => to(&|request| request.destination == *path).map(|request| {
            format!(
                "the mount on {} with the options {} (the node's own mount forbids them)",
                path.display(),
                request.mount.options.join(",")
            )
        }),
        _ => None,
    };
    match what {
        Some(what) => Error::NeedsRoot { what },
        None => explain(error),
    }
}

fn is_bind_alone(request: &MountRequest, path: &Path) -> bool {
    matches!(request.bound(), Some((source, Recursion::Alone)) if source == path)
}

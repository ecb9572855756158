//! The capabilities of a process.

use serde::{Deserialize, Serialize};

use crate::{error::Invalid, json::Node};

/// The five sets of capabilities(7) that a process is to have (runtime-spec, config.md, "Linux
/// Process"), by names such as `CAP_CHOWN`.
///
/// The names are as written: one that the kernel does not know, or that cannot be granted, is no
/// error but a warning, as the runtime-spec demands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// What the process and all that it executes can have at most.
    pub bounding: Vec<String>,
    /// What the kernel checks.
    pub effective: Vec<String>,
    /// What programs with file capabilities may take over.
    pub inheritable: Vec<String>,
    /// What the process may put into its effective set.
    pub permitted: Vec<String>,
    /// What programs executed by a user other than root keep.
    pub ambient: Vec<String>,
}

impl Capabilities {
    /// The names in all sets; some more than once.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        let sets = [
            &self.bounding,
            &self.effective,
            &self.inheritable,
            &self.permitted,
            &self.ambient,
        ];
        sets.into_iter().flatten()
    }
}

pub(super) fn read(node: &Node<'_>) -> Result<Capabilities, Invalid> {
    node.object("an object with sets of capabilities")?;
    let set = |key| {
        node.get(key)?
            .items("an array of capabilities", |item| item.owned())
    };
    Ok(Capabilities {
        bounding: set("bounding")?,
        effective: set("effective")?,
        inheritable: set("inheritable")?,
        permitted: set("permitted")?,
        ambient: set("ambient")?,
    })
}

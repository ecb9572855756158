//! One shared overlay, from its plan to its removal.

pub(crate) mod assemble;
pub(crate) mod image;
pub(crate) mod join;
pub(crate) mod keep;
pub(crate) mod layers;
pub(crate) mod layers_as_user;
pub(crate) mod list;
pub(crate) mod masks;
pub(crate) mod masks_as_user;
pub(crate) mod mount_points;
pub(crate) mod plan;
pub(crate) mod plan_as_root;
pub(crate) mod plan_as_user;
pub(crate) mod remove;
pub(crate) mod scope_options;
pub(crate) mod unused;

pub use list::ScopeInfo;
pub use masks::DEFAULT_MASKS;
pub use unused::Keep;

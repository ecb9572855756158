//! One shared overlay, from its plan to its removal.

pub(crate) mod layers;
pub(crate) mod masks;

pub use masks::DEFAULT_MASKS;

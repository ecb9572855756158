//! A scripted isolation and the conformance suite, for tests of those who use or write one.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "fake")]
mod fake;

#[cfg(feature = "fake")]
pub use fake::{Call as FakeCall, FakeIsolation};

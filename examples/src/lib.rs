//! Programs of one topic each; `README.md` orders them as a tour.
//!
//! Most are programs, in `src/bin`. What is here is the logic of a consumer of the crates, generic
//! over the contracts, so that `tests/fakes.rs` can test it without running a process.

pub mod foreground;
pub mod retry;

#[cfg(doctest)]
#[doc = include_str!("../../docs/your-own-shim.md")]
struct YourOwnShim;

#[cfg(doctest)]
#[doc = include_str!("../../docs/your-own-store.md")]
struct YourOwnStore;

#[cfg(doctest)]
#[doc = include_str!("../../docs/your-own-streams.md")]
struct YourOwnStreams;

#[cfg(doctest)]
#[doc = include_str!("../../docs/real-containers.md")]
struct RealContainers;

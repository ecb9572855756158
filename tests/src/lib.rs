//! The end-to-end harness: a private containerd for each test, its clients as people and the
//! kubelet use them, and the means to break things on purpose.
//!
//! A test says what it does in a closure that is run once for each containerd that Reaper must
//! work with, and nothing may be left behind at its end:
//!
//! ```no_run
//! reaper_tests::on_each(|node| {
//!     let output = node.ctr_run("hello", &["/bin/echo", "hello"]);
//!     assert_eq!(output.stdout, "hello\n");
//! });
//! ```
//!
//! Waiting here is bounded, and for conditions outside of this process it may look again and
//! again; nothing of what is tested may do that.

pub mod api;
pub mod config;
pub mod containerd;
pub mod cri;
pub mod ctr;
pub mod events;
pub mod faults;
pub mod fifo;
pub mod floors;
pub mod image;
pub mod kubernetes;
pub mod leftovers;
pub mod manifest;
pub mod options;
pub mod paths;
pub mod podman;
pub mod private;
pub mod procfs;
pub mod pty;
pub mod runtime;
pub mod shim;
pub mod source;
pub mod spec;
pub mod suite;
pub mod websocket;

pub use crate::{
    containerd::{Node, on_each, on_each_with},
    options::Options,
};

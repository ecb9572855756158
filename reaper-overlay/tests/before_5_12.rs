//! The tests again on a kernel before Linux 5.12, which has no `mount_setattr`.
#![allow(
    clippy::duplicate_mod,
    reason = "each of them has the tests' common part"
)]

#[path = "devices.rs"]
mod devices;
#[path = "host.rs"]
mod host;
#[path = "image.rs"]
mod image;
#[path = "nested.rs"]
mod nested;
#[path = "protection.rs"]
mod protection;
#[path = "restrictions.rs"]
mod restrictions;
#[path = "rootless.rs"]
mod rootless;
#[path = "rootless_volumes.rs"]
mod rootless_volumes;
#[path = "volumes.rs"]
mod volumes;

//! The task service over a scripted executor: what may follow what, and what each request means.

mod common;
#[path = "service/order.rs"]
mod order;
#[path = "service/requests.rs"]
mod requests;
#[path = "service/sandboxes.rs"]
mod sandboxes;

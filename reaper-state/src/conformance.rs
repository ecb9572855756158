//! The contract of [`StateStore`] as a suite that any store can be run against.
//!
//! [`state_store_conformance!`](crate::state_store_conformance) makes a `#[test]` of each rule:
//!
//! ```
//! use reaper_state::{MemoryStore, conformance::Subject};
//!
//! reaper_state::state_store_conformance!(|| Subject::new(MemoryStore::new()));
//! # fn main() {}
//! ```
//!
//! [`run`] checks all of them in one go, where there is no test harness. The rules speak about
//! what callers see, after a handle that is never dropped too. That a store survives a crash in the
//! middle of a call needs a process to kill; the crate's own `tests/crash.rs` shows how.

mod races;
mod rules;
mod subject;

use races::*;
use rules::*;

pub use self::subject::Subject;

macro_rules! rules {
    (($d:tt) $($rule:ident)*) => {
        reaper_spec::contract_rules! { Subject, self: $($rule)* }

        /// Makes a `#[test]` of each rule of a [`StateStore`]'s contract. The argument is an
        /// expression that can be called to make a [`Subject`], a new and empty store, for each.
        #[macro_export]
        macro_rules! state_store_conformance {
            ($d subject:expr) => {
                $(#[test]
                fn $rule() {
                    let name = stringify!($rule);
                    let rules = $crate::conformance::RULES;
                    let rule = rules.iter().find(|rule| rule.name == name).expect("a rule");
                    rule.check(&($d subject)());
                })*
            };
        }
    };
}

rules! { ($)
    a_new_store_is_empty
    get_returns_created_record
    create_with_existing_id_is_refused
    every_status_and_exit_is_stored
    a_large_record_is_kept
    an_update_replaces_the_record
    an_update_of_an_old_revision_is_a_conflict
    an_update_without_a_change_is_a_new_revision
    revisions_are_never_reused
    deleted_container_is_missing_and_its_id_free
    containers_do_not_touch_each_other
    the_list_is_sorted_and_complete
    another_handle_sees_every_change
    acknowledged_change_outlives_its_writer
    newer_record_is_named_kept_and_hides_no_other
    stores_of_two_roots_are_separate
    one_of_many_concurrent_creates_succeeds
    one_of_many_updates_of_a_revision_wins
    no_update_is_lost
    readers_see_whole_records_in_order
    concurrent_creates_and_deletes_alternate
    list_contains_unchanged_record_while_others_change
}

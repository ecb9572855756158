//! The published contract, on every binder.

use reaper_exec::io::{
    CaptureBinder, IoBinder, StandardBinder,
    conformance::{self, Client, Subject},
};

use crate::support::Scratch;

fn subject(binder: impl IoBinder + 'static) -> Subject {
    // The suite forks, and knows nothing of the tests beside it.
    let folder = Scratch::alone();
    Subject::new(binder, folder.path()).keeping(folder)
}

#[test]
fn the_standard_binder_keeps_the_contract() {
    conformance::run(|| subject(StandardBinder::new()));
}

#[test]
fn the_capturing_binder_keeps_the_contract_for_what_it_captures() {
    conformance::run(|| {
        let binder = CaptureBinder::with_fallback(StandardBinder::new());
        subject(binder)
            .connecting(Client::capturing)
            .without_terminals()
    });
}

#[test]
fn the_capturing_binder_keeps_the_contract_for_everything_else() {
    // Chosen when the program runs, as a boxed binder is.
    let others = || -> Box<dyn IoBinder> { Box::new(StandardBinder::new()) };
    conformance::run(|| subject(CaptureBinder::with_fallback(others())));
}

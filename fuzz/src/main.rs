//! A fuzz target by libFuzzer, where it is built with it: the one that `REAPER_FUZZ_TARGET` names.
//! `tests/fuzz` builds and starts it.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod fuzzer {
    #![allow(unsafe_code, missing_docs)]

    use std::{env, sync::LazyLock};

    static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
        let name = env::var("REAPER_FUZZ_TARGET").expect("REAPER_FUZZ_TARGET names a target");
        let (_, run) = reaper_fuzz::target(&name).expect("REAPER_FUZZ_TARGET is a target");
        run
    });

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
}

/// Without libFuzzer there is nothing to do but to say which targets there are.
#[cfg(not(fuzzing))]
fn main() {
    for (name, _) in reaper_fuzz::TARGETS {
        println!("{name}");
    }
}

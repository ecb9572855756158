//! What the suites of contracts have in common: a trait's contract is a list of rules, each of
//! which is checked on a separate subject, so that one that is broken does not hide another.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// One rule of a contract, which is checked on an `S`.
#[derive(Debug)]
pub struct Rule<S: 'static> {
    /// The rule in words, joined by underscores.
    pub name: &'static str,
    check: fn(&S),
}

impl<S> Rule<S> {
    /// A rule, and what panics on a subject that breaks it.
    pub const fn new(name: &'static str, check: fn(&S)) -> Self {
        Self { name, check }
    }

    /// Checks the rule on a new subject.
    ///
    /// # Panics
    /// The subject breaks the rule; the message says which it is and how.
    pub fn check(&self, subject: &S) {
        // A subject that panicked is not used again.
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| (self.check)(subject))) {
            broken(self.name, &*cause);
        }
    }
}

/// Panics with the name of a broken rule before what its check panicked with.
///
/// # Panics
/// Always.
pub fn broken(rule: &str, cause: &(dyn Any + Send)) -> ! {
    let said = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied());
    panic!(
        "the rule {rule} is broken: {}",
        said.unwrap_or("no message")
    )
}

impl<S> Clone for Rule<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Rule<S> {}

/// Checks every rule, each on a subject of its own.
///
/// # Panics
/// A subject breaks a rule; the message says which and how.
pub fn run<S>(rules: &[Rule<S>], subject: impl Fn() -> S) {
    for rule in rules {
        rule.check(&subject());
    }
}

/// Makes `RULES`, `Rule` and `run` of a contract from the module of its rules and their names:
/// `contract_rules! { Subject, rules: one_rule another_rule }`.
#[macro_export]
macro_rules! contract_rules {
    ($subject:ty, $rules:ident: $($rule:ident)*) => {
        /// One rule of the contract.
        pub type Rule = $crate::conformance::Rule<$subject>;

        /// The rules, in the order of the contract.
        pub const RULES: &[Rule] = &[$(Rule::new(stringify!($rule), $rules::$rule)),*];

        /// Checks every rule, each on a subject of its own, made by `subject`.
        ///
        /// # Panics
        /// The subject breaks a rule; the message says which and how.
        pub fn run(subject: impl Fn() -> $subject) {
            $crate::conformance::run(RULES, subject);
        }
    };
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct Subject(u32);

    const RULES: &[Rule<Subject>] = &[
        Rule::new("it_is_small", |subject| {
            assert!(subject.0 < 10, "{} is not small", subject.0);
        }),
        Rule::new("it_is_even", |subject| {
            assert!(subject.0.is_multiple_of(2), "{} is odd", subject.0);
        }),
    ];

    #[test]
    fn each_rule_gets_a_subject_of_its_own() {
        let made = Cell::new(0);
        run(RULES, || {
            made.set(made.get() + 1);
            Subject(2)
        });
        assert_eq!(made.get(), RULES.len());
    }

    #[test]
    fn broken_rule_panics_with_its_name_and_message() {
        let broken = catch_unwind(|| run(RULES, || Subject(3))).expect_err("3 is odd");
        let message = broken.downcast_ref::<String>().expect("a message");
        assert_eq!(message, "the rule it_is_even is broken: 3 is odd");
    }
}

//! Programs and exceptions are run by models of the kernel, and compared with the plain reading of the
//! rules.

use std::os::fd::AsFd as _;

use proptest::prelude::*;
use reaper_spec::DeviceRule;

use super::{
    attach::PROGRAM,
    instruction::Instruction,
    kernel,
    program::{self, compile},
    rules::{Access, Kind, Table, are_asked},
    v1,
};

fn rule(allow: bool, text: &str) -> DeviceRule {
    let mut words = text.split([' ', ':']);
    let kind = words.next().filter(|kind| !kind.is_empty());
    let mut number = || match words.next() {
        None | Some("*") => None,
        Some(number) => Some(number.parse().expect("a number")),
    };
    let (major, minor) = (number(), number());
    DeviceRule {
        allow,
        kind: kind.map(str::to_owned),
        major,
        minor,
        access: words.next().map(str::to_owned),
    }
}

fn deny(text: &str) -> DeviceRule {
    rule(false, text)
}

fn allow(text: &str) -> DeviceRule {
    rule(true, text)
}

/// Whether the rules allow one kind of access: the last that is about it decides, and before all of
/// them what is said of the devices that each container has.
fn plainly_allows(rules: &[DeviceRule], kind: char, major: u32, minor: u32, letter: char) -> bool {
    let is_default = match (kind, major, minor) {
        ('c', 1, 3 | 5 | 7 | 8 | 9) | ('c', 5, 0 | 2) | ('c', 136, _) => true,
        _ => letter == 'm',
    };
    if is_default {
        return true;
    }
    let is_number =
        |own: Option<i64>, number: u32| own.is_none_or(|own| own == -1 || own == i64::from(number));
    let last = rules.iter().rev().find(|rule| {
        let own = rule.kind.as_deref().unwrap_or_default();
        (["", "a"].contains(&own) || own == kind.to_string())
            && is_number(rule.major, major)
            && is_number(rule.minor, minor)
            && rule
                .access
                .as_ref()
                .is_none_or(|own| own.is_empty() || own.contains(letter))
    });
    rules.is_empty() || last.is_some_and(|rule| rule.allow)
}

/// All kinds of access that are asked for at once.
fn plainly_allows_all(rules: &[DeviceRule], kind: Kind, major: u32, minor: u32, bits: u8) -> bool {
    let letters = [('m', 1), ('r', 2), ('w', 4)];
    let mut asked = letters.iter().filter(|(_, bit)| bits & bit != 0);
    asked.all(|(letter, _)| plainly_allows(rules, kind.letter(), major, minor, *letter))
}

/// What the first entry that is about a device has.
fn found(table: &Table, kind: Kind, major: u32, minor: u32) -> Access {
    let is = |own: Option<u32>, number: u32| own.is_none_or(|own| own == number);
    let mut entries = table.0.iter();
    let entry = entries
        .find(|entry| entry.kind == kind && is(entry.major, major) && is(entry.minor, minor));
    entry.expect("an entry about any device").allowed
}

/// The kernel's verifier reads each instruction as it is encoded.
#[test]
fn the_kernel_takes_a_program_and_has_its_name() {
    let rules = [
        deny("a"),
        allow("c 1:3 r"),
        deny("b 8:*"),
        allow("c *:7 rwm"),
    ];
    for table in [Table::of(&rules).expect("a table"), Table(Vec::new())] {
        let program = match kernel::load(&compile(&table), PROGRAM) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                eprintln!("not tried: the kernel has no such programs for this user: {error}");
                return;
            }
            loaded => loaded.expect("a program that the kernel takes"),
        };
        assert_eq!(kernel::name(program.as_fd()).expect("a name"), PROGRAM);
    }
}

/// Runs a program as the kernel does, and returns its answer.
fn run(program: &[Instruction], kind: Kind, major: u32, minor: u32, bits: u8) -> u32 {
    let context = [u32::from(bits) << 16 | kind as u32, major, minor];
    let mut registers = [0xdead_beef_u32; 11];
    let mut at = 0_usize;
    // Jumps go forward only, which the verifier sees to.
    loop {
        let instruction = &program[at];
        at += 1;
        let (to, from) = (usize::from(instruction.to), usize::from(instruction.from));
        let value = instruction.value.cast_unsigned();
        let jumps = match instruction.code {
            program::LOAD_32 => {
                assert_eq!(from, 1, "only the context can be read");
                let offset = usize::try_from(instruction.offset).expect("an offset");
                registers[to] = context[offset / 4];
                false
            }
            program::MOVE_REGISTER_32 => {
                registers[to] = registers[from];
                false
            }
            program::MOVE_32 => {
                registers[to] = value;
                false
            }
            program::AND_32 => {
                registers[to] &= value;
                false
            }
            program::SHIFT_RIGHT_32 => {
                registers[to] >>= value;
                false
            }
            program::JUMP_IF_NOT_EQUAL => registers[to] != value,
            program::JUMP_IF_ANY_BIT => registers[to] & value != 0,
            program::EXIT => return registers[0],
            code => panic!("no such code: {code:#x}"),
        };
        if jumps {
            at += usize::try_from(instruction.offset).expect("a jump forward");
        }
    }
}

/// Decides as the controller of version 1 does with these exceptions.
fn controller_allows(
    exceptions: &v1::Exceptions,
    kind: Kind,
    major: u32,
    minor: u32,
    bits: u8,
) -> bool {
    let about = exceptions.lines.iter().filter_map(|line| {
        let words: Vec<_> = line.split([' ', ':']).collect();
        let [own, own_major, own_minor, letters] = words[..] else {
            panic!("{line}");
        };
        let is = |own: &str, number: u32| own == "*" || own == number.to_string();
        let access = [('m', 1), ('r', 2), ('w', 4)];
        let access = access
            .iter()
            .filter(|(letter, _)| letters.contains(*letter));
        let access: u8 = access.map(|(_, bit)| bit).sum();
        (own == kind.letter().to_string() && is(own_major, major) && is(own_minor, minor))
            .then_some(access)
    });
    let mut about = about;
    match exceptions.allow {
        true => !about.any(|access| access & bits != 0),
        false => about.any(|access| bits & !access == 0),
    }
}

/// Devices that rules name, that defaults name, and others.
const MAJORS: [u32; 8] = [0, 1, 5, 7, 8, 10, 136, u32::MAX];
const MINORS: [u32; 9] = [0, 1, 2, 3, 5, 9, 200, 229, u32::MAX];

/// Compares all that can be asked of all these devices.
fn for_all(mut check: impl FnMut(Kind, u32, u32, u8)) {
    for kind in Kind::BOTH {
        for major in MAJORS {
            for minor in MINORS {
                for bits in 1..=7 {
                    check(kind, major, minor, bits);
                }
            }
        }
    }
}

fn check_program(rules: &[DeviceRule]) {
    let Some(table) = Table::of(rules) else {
        for_all(|kind, major, minor, bits| {
            assert!(plainly_allows_all(rules, kind, major, minor, bits));
        });
        return;
    };
    let program = compile(&table);
    for_all(|kind, major, minor, bits| {
        let expected = plainly_allows_all(rules, kind, major, minor, bits);
        let place = format!("{kind:?} {major}:{minor} {bits}: {rules:?}");
        let allowed = found(&table, kind, major, minor);
        assert_eq!(Access(bits).is_within(allowed), expected, "table, {place}");
        let answer = run(&program, kind, major, minor, bits);
        assert_eq!(answer, u32::from(expected), "program, {place}");
    });
}

/// Whether the rules can be exceptions, which are checked.
fn check_exceptions(rules: &[DeviceRule]) -> bool {
    let Some(table) = Table::of(rules) else {
        return true;
    };
    let Ok(exceptions) = v1::exceptions(&table) else {
        return false;
    };
    for_all(|kind, major, minor, bits| {
        let expected = plainly_allows_all(rules, kind, major, minor, bits);
        let allowed = controller_allows(&exceptions, kind, major, minor, bits);
        let place = format!("{kind:?} {major}:{minor} {bits}");
        assert_eq!(allowed, expected, "{place}: {rules:?}: {exceptions:?}");
    });
    true
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let number = |numbers: &[u32]| {
        let named = prop::sample::select(numbers.to_vec()).prop_map(|n| Some(n.into()));
        prop_oneof![2 => named, 1 => Just(None), 1 => Just(Some(-1))]
    };
    let kind = prop::sample::select(vec![None, Some(""), Some("a"), Some("b"), Some("c")]);
    let access = prop::sample::select(vec![
        None,
        Some(""),
        Some("r"),
        Some("w"),
        Some("m"),
        Some("rw"),
        Some("rwm"),
        Some("mr"),
    ]);
    (
        any::<bool>(),
        kind,
        number(&MAJORS),
        number(&MINORS),
        access,
    )
        .prop_map(|(allow, kind, major, minor, access)| DeviceRule {
            allow,
            kind: kind.map(str::to_owned),
            major,
            minor,
            access: access.map(str::to_owned),
        })
}

proptest! {
    #[test]
    fn a_program_answers_as_the_rules_say(rules in prop::collection::vec(any_rule(), 0..12)) {
        check_program(&rules);
    }

    #[test]
    fn exceptions_allow_what_the_rules_say(rules in prop::collection::vec(any_rule(), 0..5)) {
        check_exceptions(&rules);
    }

    /// What engines and people write: a base, and devices that differ from it.
    #[test]
    fn devices_that_differ_from_a_base_can_be_exceptions(
        base in any::<bool>(),
        devices in prop::collection::vec((0..3_u32, 0..3_u32, any::<bool>()), 0..6),
    ) {
        let mut rules = vec![rule(base, "a")];
        for (major, minor, block) in devices {
            let kind = if block { 'b' } else { 'c' };
            rules.push(rule(!base, &format!("{kind} {}:{minor} rwm", major + 20)));
        }
        prop_assert!(check_exceptions(&rules));
    }
}

#[test]
fn rules_that_allow_all_forbid_nothing() {
    for rules in [
        vec![],
        vec![allow("a *:* rwm")],
        vec![deny("a"), allow("a")],
        vec![deny("a"), allow("c"), allow("b *:* rwm")],
        vec![deny("c 1:3 rwm")],
    ] {
        let forbids = Table::of(&rules).is_some();
        // Without a rule about all devices those that none names are forbidden.
        assert_eq!(forbids, rules == [deny("c 1:3 rwm")], "{rules:?}");
    }
}

#[test]
fn an_engines_rules_are_what_a_controller_of_version_1_is_told() {
    let rules = [
        deny(""),
        allow("c 10:229 rw"),
        allow("b 8:* r"),
        allow("c 5:1 rwm"),
    ];
    let table = Table::of(&rules).expect("a table");
    let exceptions = v1::exceptions(&table).expect("exceptions");
    assert!(!exceptions.allow);
    let mut lines = exceptions.lines;
    lines.sort();
    let expected = [
        "b *:* m",
        "b 8:* rm",
        "c *:* m",
        "c 10:229 rwm",
        "c 136:* rwm",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:1 rwm",
        "c 5:2 rwm",
    ];
    assert_eq!(lines, expected);
    let but_one = [allow("a"), deny("b 8:* w")];
    let table = Table::of(&but_one).expect("a table");
    let exceptions = v1::exceptions(&table).expect("exceptions");
    assert_eq!(
        (exceptions.allow, exceptions.lines),
        (true, vec!["b 8:* w".to_owned()])
    );
}

#[test]
fn an_exception_from_an_exception_is_refused_by_its_name() {
    let rules = [deny("a"), allow("b 8:* rwm"), deny("b 8:1 rwm")];
    let table = Table::of(&rules).expect("a table");
    let reason = v1::exceptions(&table).expect_err("no such exceptions");
    assert!(
        reason.contains("b 8:1") && reason.contains("b 8:*"),
        "{reason}"
    );
    // A program has them.
    check_program(&rules);
}

#[test]
fn rules_of_engines_are_not_asked_for() {
    let engine = [
        deny(""),
        allow("c 1:3 rwm"),
        allow("c 1:8 rwm"),
        allow("c 1:7 rwm"),
        allow("c 5:0 rwm"),
        allow("c 1:5 rwm"),
        allow("c 1:9 rwm"),
        allow("c 5:1 rwm"),
        allow("c 136:* rwm"),
        allow("c 5:2 rwm"),
    ];
    assert!(!are_asked(&engine) && !are_asked(&[]));
    assert!(!are_asked(&[deny("a *:* rwm")]));
    for more in [
        allow("c 10:229 rwm"),
        allow("a"),
        allow("b"),
        deny("c"),
        deny("a *:* w"),
        allow("c 1:* r"),
    ] {
        assert!(are_asked(&[engine[0].clone(), more.clone()]), "{more:?}");
    }
}

#[test]
fn many_rules_make_a_program_of_a_length_in_proportion() {
    let rules: Vec<_> = (0..2000)
        .map(|n| allow(&format!("c {}:{} rwm", 200 + n % 50, n)))
        .collect();
    let table = Table::of(&rules).expect("a table");
    let program = compile(&table);
    assert!(program.len() < 6 * 2100, "{}", program.len());
    assert_eq!(run(&program, Kind::Char, 249, 1999, 7), 1);
    assert_eq!(run(&program, Kind::Char, 249, 1998, 2), 0);
}

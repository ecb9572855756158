//! Filters against what their rules say, by a filter machine.

use libc::sock_filter;
use proptest::prelude::*;
use reaper_spec::{
    ContainerSpec, Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompOp, SeccompRule,
};

use super::{CompileError, arch::MACHINE, compile};

/// A call, as the kernel shows it to a filter (`struct seccomp_data`).
#[derive(Debug, Clone, Copy)]
struct Call {
    number: u32,
    arch: u32,
    args: [u64; 6],
}

/// What the kernel would do with a call.
fn run(program: &[sock_filter], call: &Call) -> u32 {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.arch,
        16.. => {
            let arg = call.args[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) {
                arg as u32
            } else {
                (arg >> 32) as u32
            }
        }
        _ => panic!("nothing is read at {offset}"),
    };
    let (mut next, mut loaded) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[next];
        next += 1;
        let branch = |taken| usize::from(if taken { jt } else { jf });
        match code {
            0x20 => loaded = word(k),
            0x54 => loaded &= k,
            0x05 => next += k as usize,
            0x15 => next += branch(loaded == k),
            0x25 => next += branch(loaded > k),
            0x35 => next += branch(loaded >= k),
            0x06 => return k,
            _ => panic!("{code:#x} is not generated"),
        }
    }
}

fn rule(names: &[&str], action: SeccompAction, args: &[SeccompArg]) -> SeccompRule {
    SeccompRule {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        action,
        args: args.to_vec(),
    }
}

fn filter(default_action: SeccompAction, rules: Vec<SeccompRule>) -> Seccomp {
    Seccomp {
        default_action,
        architectures: MACHINE.iter().map(|arch| arch.name).collect(),
        flags: Vec::new(),
        listener_path: None,
        listener_metadata: None,
        rules,
    }
}

/// The call of a name on the machine's architecture of that place.
fn call(arch: usize, name: &str, args: [u64; 6]) -> Call {
    Call {
        number: (MACHINE[arch].numbers)()[name],
        arch: MACHINE[arch].audit,
        args,
    }
}

fn answer(seccomp: &Seccomp, call: &Call) -> u32 {
    run(&compile(seccomp).unwrap().program, call)
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_THREAD;

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.unsigned_abs()
}

#[test]
fn call_of_each_architecture_gets_the_action_of_its_rule() {
    let deny = SeccompAction::Errno(1);
    let seccomp = filter(
        deny,
        vec![rule(&["read", "execve"], SeccompAction::Allow, &[])],
    );
    for arch in 0..MACHINE.len() {
        for name in ["read", "execve"] {
            assert_eq!(answer(&seccomp, &call(arch, name, [7; 6])), ALLOW, "{name}");
        }
        assert_eq!(answer(&seccomp, &call(arch, "write", [7; 6])), errno(1));
    }
}

#[test]
fn call_of_an_architecture_that_is_not_named_kills() {
    let mut seccomp = filter(SeccompAction::Allow, Vec::new());
    seccomp.architectures = vec![SeccompArch::S390x];
    assert_eq!(answer(&seccomp, &call(0, "read", [0; 6])), ALLOW, "its own");
    for arch in 1..MACHINE.len() {
        assert_eq!(answer(&seccomp, &call(arch, "read", [0; 6])), KILL);
    }
}

#[test]
fn call_that_is_newer_than_all_rules_does_not_exist() {
    let newer = Call {
        number: 4000,
        ..call(0, "read", [0; 6])
    };
    let allow = vec![rule(&["read", "clone3"], SeccompAction::Allow, &[])];
    let seccomp = filter(SeccompAction::Errno(1), allow.clone());
    assert_eq!(answer(&seccomp, &newer), errno(libc::ENOSYS));
    let seccomp = filter(SeccompAction::Log, allow);
    assert_eq!(answer(&seccomp, &newer), libc::SECCOMP_RET_LOG);
    let seccomp = filter(SeccompAction::Errno(1), Vec::new());
    assert_eq!(
        answer(&seccomp, &newer),
        errno(1),
        "there is none to be newer than"
    );
}

#[test]
#[cfg(target_arch = "x86_64")]
fn call_behind_another_is_restricted_there_too() {
    let (x86, socket, of_ipc) = (1, 1, 23);
    let rules = |action, args: &[SeccompArg]| vec![rule(&["socket", "shmget"], action, args)];
    let by_socketcall = |number| call(x86, "socketcall", [number, 0, 0, 0, 0, 0]);
    let by_ipc = call(x86, "ipc", [of_ipc, 0, 0, 0, 0, 0]);
    let vsock = SeccompArg {
        index: 0,
        value: 40,
        value_two: 0,
        op: SeccompOp::Equal,
    };
    let deny = SeccompAction::Errno(1);

    let seccomp = filter(SeccompAction::Allow, rules(deny, &[vsock]));
    assert_eq!(answer(&seccomp, &by_socketcall(socket)), errno(1));
    assert_eq!(answer(&seccomp, &by_socketcall(socket + 1)), ALLOW);
    assert_eq!(answer(&seccomp, &by_ipc), errno(1));
    let seccomp = filter(
        SeccompAction::Allow,
        rules(SeccompAction::Trace(7), &[vsock]),
    );
    assert_eq!(
        answer(&seccomp, &by_socketcall(socket)),
        libc::SECCOMP_RET_TRACE | 7
    );
    let seccomp = filter(deny, rules(SeccompAction::Allow, &[vsock]));
    assert_eq!(answer(&seccomp, &by_socketcall(socket)), errno(1));
    let seccomp = filter(deny, rules(SeccompAction::Allow, &[]));
    assert_eq!(answer(&seccomp, &by_socketcall(socket)), ALLOW);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn condition_on_32_bits_leaves_out_the_rest_of_the_register() {
    let (own, x32) = (0, 2);
    for op in SeccompOp::ALL {
        let condition = SeccompArg {
            index: 1,
            value: 7,
            value_two: 7,
            op: *op,
        };
        let rules = vec![rule(&["personality"], SeccompAction::Allow, &[condition])];
        let seccomp = filter(SeccompAction::Errno(1), rules);
        let with = |arch, arg| answer(&seccomp, &call(arch, "personality", [0, arg, 0, 0, 0, 0]));
        for low in [6, 7, 8] {
            assert_eq!(with(x32, (9 << 32) + low), with(own, low), "{op:?}");
        }
    }
}

#[test]
fn unknown_call_is_refused_where_it_would_be_allowed() {
    let rules = |action| vec![rule(&["read", "call_of_tomorrow"], action, &[])];
    let deny = SeccompAction::Errno(1);
    // A tracer that is to decide on it would not be asked.
    for restriction in [deny, SeccompAction::Trace(1)] {
        let refused = compile(&filter(SeccompAction::Allow, rules(restriction)));
        assert!(
            matches!(refused, Err(CompileError::UnknownCall(name)) if name == "call_of_tomorrow")
        );
    }
    for (default, action) in [
        (deny, SeccompAction::Allow),
        (SeccompAction::KillProcess, deny),
        (SeccompAction::Allow, SeccompAction::Log),
    ] {
        compile(&filter(default, rules(action))).unwrap();
    }
}

#[test]
fn default_profile_of_an_engine_is_a_short_program() {
    let config = include_bytes!("../../../reaper-spec/tests/corpus/podman-plain.json");
    let spec = ContainerSpec::parse(config, "/b".as_ref()).unwrap();
    let seccomp = spec.seccomp.unwrap();
    let filter = compile(&seccomp).unwrap();
    assert!(filter.program.len() < 2000, "{}", filter.program.len());
    let answer = |call: &Call| run(&filter.program, call);
    let allowed = seccomp.rules.iter();
    let allowed =
        allowed.filter(|rule| rule.action == SeccompAction::Allow && rule.args.is_empty());
    for name in allowed.flat_map(|rule| &rule.names) {
        for (place, arch) in MACHINE.iter().enumerate() {
            if (arch.numbers)().contains_key(name.as_str()) {
                assert_eq!(answer(&call(place, name, [0; 6])), ALLOW, "{name}");
            }
        }
    }
    let personality = |value| call(0, "personality", [value, 0, 0, 0, 0, 0]);
    assert_eq!(answer(&personality(0xffff_ffff)), ALLOW);
    assert_ne!(answer(&personality(0x1234)), ALLOW);
}

#[test]
fn many_rules_make_far_jumps() {
    let every = (MACHINE[0].numbers)();
    let mut names: Vec<_> = every.into_iter().collect();
    names.sort_unstable_by_key(|&(_, number)| number);
    // Each call has an answer unlike its neighbours'.
    let rules = names
        .iter()
        .enumerate()
        .map(|(index, &(name, _))| rule(&[name], SeccompAction::Errno(index as u16 + 2), &[]));
    let seccomp = filter(SeccompAction::Errno(1), rules.collect());
    let filter = compile(&seccomp).unwrap();
    for (index, (name, _)) in names.iter().enumerate() {
        let answered = run(&filter.program, &call(0, name, [0; 6]));
        assert_eq!(answered, errno(index as i32 + 2), "{name}");
    }
}

fn action() -> impl Strategy<Value = SeccompAction> {
    prop_oneof![
        Just(SeccompAction::Allow),
        Just(SeccompAction::KillProcess),
        Just(SeccompAction::Trap),
        (0..200_u16).prop_map(SeccompAction::Errno),
        any::<u16>().prop_map(SeccompAction::Trace),
        Just(SeccompAction::Log),
    ]
}

/// Values that differ in one half, and by one.
fn value() -> impl Strategy<Value = u64> {
    let near = |value: u64| [value.wrapping_sub(1), value, value.wrapping_add(1)];
    let all = [0, 7, 1 << 31, 1 << 32, (7 << 32) + 7, u64::MAX].map(near);
    prop::sample::select(all.concat())
}

fn condition() -> impl Strategy<Value = SeccompArg> {
    (
        0..6_u8,
        value(),
        value(),
        prop::sample::select(SeccompOp::ALL),
    )
        .prop_map(|(index, value, value_two, op)| SeccompArg {
            index,
            value,
            value_two,
            op,
        })
}

const NAMES: [&str; 6] = ["read", "write", "close", "openat", "ioctl", "fchmodat2"];

fn rules() -> impl Strategy<Value = Vec<SeccompRule>> {
    let names = prop::sample::subsequence(NAMES.to_vec(), 1..4);
    let one = (names, action(), prop::collection::vec(condition(), 0..4))
        .prop_map(|(names, action, args)| rule(&names, action, &args));
    prop::collection::vec(one, 0..6)
}

fn fits(condition: &SeccompArg, args: &[u64; 6]) -> bool {
    let arg = args[usize::from(condition.index)];
    let value = condition.value;
    match condition.op {
        SeccompOp::NotEqual => arg != value,
        SeccompOp::Less => arg < value,
        SeccompOp::LessOrEqual => arg <= value,
        SeccompOp::Equal => arg == value,
        SeccompOp::GreaterOrEqual => arg >= value,
        SeccompOp::Greater => arg > value,
        SeccompOp::MaskedEqual => arg & value == condition.value_two & value,
    }
}

/// What the rules say of a call of the machine's own architecture.
fn expected(seccomp: &Seccomp, name: &str, args: &[u64; 6]) -> SeccompAction {
    let about: Vec<_> = seccomp
        .rules
        .iter()
        .filter(|rule| rule.names.iter().any(|other| other == name))
        .collect();
    let always = about.iter().find(|rule| rule.args.is_empty());
    let fitting = |rule: &&&SeccompRule| {
        let mut indexes: Vec<_> = rule.args.iter().map(|arg| arg.index).collect();
        indexes.sort_unstable();
        let twice = indexes.windows(2).any(|pair| pair[0] == pair[1]);
        let mut args = rule.args.iter().map(|arg| fits(arg, args));
        if twice {
            args.any(|fits| fits)
        } else {
            args.all(|fits| fits)
        }
    };
    let rule = always.or_else(|| about.iter().find(fitting));
    rule.map_or(seccomp.default_action, |rule| rule.action)
}

proptest! {
    #[test]
    fn program_does_what_the_rules_say(
        rules in rules(),
        default in action(),
        name in prop::sample::select(NAMES.to_vec()),
        args in prop::array::uniform6(value()),
    ) {
        let mut seccomp = filter(default, rules);
        // So that no call is newer than all rules.
        seccomp.rules.push(rule(&["file_setattr"], SeccompAction::Allow, &[]));
        let call = call(0, name, args);
        let answered = answer(&seccomp, &call);
        prop_assert_eq!(answered, compile::answer(expected(&seccomp, name, &args)));
    }
}

#[test]
fn filter_of_projects_refuses_what_sets_them_and_nothing_else() {
    let program = super::keep_projects().unwrap().program;
    let refused = errno(libc::EPERM);
    for (arch, machine) in MACHINE.iter().enumerate() {
        let ioctl = |command: u64| run(&program, &call(arch, "ioctl", [3, command, 0, 0, 0, 0]));
        for command in [0x401c_5820, 0x4008_6602, 0x4004_6602] {
            assert_eq!(ioctl(command), refused, "{command:#x}");
            // The kernel ignores the upper half.
            assert_eq!(ioctl(command | 7 << 32), refused, "{command:#x}");
        }
        // FS_IOC_FSGETXATTR, FS_IOC_GETFLAGS, TCGETS.
        for command in [0x801c_581f, 0x8008_6601, 0x5401] {
            assert_eq!(ioctl(command), ALLOW, "{command:#x}");
        }
        assert_eq!(run(&program, &call(arch, "file_setattr", [0; 6])), refused);
        for name in ["read", "execve", "file_getattr", "seccomp"] {
            assert_eq!(run(&program, &call(arch, name, [0; 6])), ALLOW, "{name}");
        }
        let newer = Call {
            number: machine.first + 4000,
            ..call(arch, "read", [0; 6])
        };
        assert_eq!(run(&program, &newer), ALLOW);
    }
}

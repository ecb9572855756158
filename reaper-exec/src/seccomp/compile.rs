//! From the rules of a spec to a program.

use std::collections::BTreeMap;

use reaper_spec::{
    Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompFlag, SeccompOp, SeccompRule,
};

use super::{
    Agent, CompileError, Filter,
    arch::{self, Arch, MACHINE, X32},
    bpf::{self, Condition, Program},
};

/// What the kernel takes (`BPF_MAXINSNS`).
const MOST: usize = 4096;
/// On ARM private calls follow, far behind those that are numbered in the order of their making.
const PRIVATE: u32 = 0x000f_0000;
/// A call that a tracer has taken out has this number.
const SKIPPED: u32 = u32::MAX;

/// What becomes of a call: the conditional rules in their order, then the rest.
#[derive(Default)]
struct Decision {
    conditional: Vec<(Vec<Condition>, u32)>,
    /// `None` for what holds of calls without a rule.
    always: Option<u32>,
}

pub(super) fn compile(seccomp: &Seccomp) -> Result<Filter, CompileError> {
    if MACHINE.is_empty() {
        return Err(CompileError::Machine);
    }
    refuse_unknown(seccomp)?;
    let own = MACHINE[0].name;
    let wanted = |arch: &&Arch| arch.name == own || seccomp.architectures.contains(&arch.name);
    let mut program = vec![bpf::load_arch()];
    program.extend(by_arch(seccomp, MACHINE.iter().filter(wanted).collect()));
    if program.len() > MOST {
        return Err(CompileError::TooLarge(program.len()));
    }
    let agent = seccomp.notifies().then_some(()).and_then(|()| {
        Some(Agent {
            socket: seccomp.listener_path.clone()?,
            metadata: seccomp.listener_metadata.clone(),
        })
    });
    Ok(Filter {
        program,
        flags: flags(seccomp, agent.is_some()),
        agent,
    })
}

/// A call that is to be restricted and is not known would be allowed where all others are. One that
/// is to be allowed is refused as all others are: profiles name calls of every kernel.
fn refuse_unknown(seccomp: &Seccomp) -> Result<(), CompileError> {
    if !seccomp.default_action.is_permissive() {
        return Ok(());
    }
    let restricting = seccomp.rules.iter();
    let restricting = restricting.filter(|rule| restricts(seccomp, rule));
    let mut names = restricting.flat_map(|rule| &rule.names);
    match names.find(|name| !arch::is_known(name)) {
        Some(name) => Err(CompileError::UnknownCall(name.clone())),
        None => Ok(()),
    }
}

/// Whether a call would have more freedom without the rule. Where calls are made by default, one that an
/// agent or a tracer decides on would.
fn restricts(seccomp: &Seccomp, rule: &SeccompRule) -> bool {
    let lets_pass = match seccomp.default_action {
        SeccompAction::Allow | SeccompAction::Log => {
            matches!(rule.action, SeccompAction::Allow | SeccompAction::Log)
        }
        _ => rule.action.is_permissive(),
    };
    !lets_pass
}

fn flags(seccomp: &Seccomp, notifies: bool) -> libc::c_ulong {
    /// Linux 5.19.
    const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    let mut flags = 0;
    if notifies {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    }
    for flag in &seccomp.flags {
        flags |= match flag {
            // A child has one thread, and its program starts with one.
            SeccompFlag::Tsync => 0,
            SeccompFlag::Log => libc::SECCOMP_FILTER_FLAG_LOG,
            SeccompFlag::SpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            // It is about receiving by an agent.
            SeccompFlag::WaitKillableRecv if notifies => WAIT_KILLABLE_RECV,
            SeccompFlag::WaitKillableRecv => 0,
        };
    }
    flags
}

/// What the kernel is told to do (linux/seccomp.h).
pub(super) fn answer(action: SeccompAction) -> u32 {
    match action {
        SeccompAction::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        SeccompAction::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        SeccompAction::Trap => libc::SECCOMP_RET_TRAP,
        SeccompAction::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        SeccompAction::Trace(message) => libc::SECCOMP_RET_TRACE | u32::from(message),
        SeccompAction::Log => libc::SECCOMP_RET_LOG,
        SeccompAction::Allow => libc::SECCOMP_RET_ALLOW,
        SeccompAction::Notify => libc::SECCOMP_RET_USER_NOTIF,
    }
}

/// Looks for the architecture of a call. One that the spec does not name is none of the container's,
/// and its calls kill, as with libseccomp.
fn by_arch(seccomp: &Seccomp, arches: Vec<&Arch>) -> Program {
    let mut audits: Vec<u32> = arches.iter().map(|arch| arch.audit).collect();
    audits.sort_unstable();
    audits.dedup();
    let foreign = vec![bpf::answer(libc::SECCOMP_RET_KILL_THREAD)];
    audits.into_iter().fold(foreign, |others, audit| {
        let mut tree = Ranges::default();
        for arch in arches.iter().filter(|arch| arch.audit == audit) {
            tree.add(seccomp, arch);
        }
        if audit == MACHINE[0].audit && MACHINE[0].name == SeccompArch::X86_64 {
            tree.end_of_x86_64(seccomp, &arches);
        }
        let mut calls = vec![bpf::load_number()];
        calls.extend(tree.search());
        bpf::if_equal(audit, calls, others)
    })
}

/// What becomes of the calls from each number on, up to the next.
#[derive(Default)]
struct Ranges(Vec<(u32, Leaf)>);

#[derive(Clone, PartialEq, Eq)]
struct Leaf {
    conditional: Vec<(Vec<Condition>, u32)>,
    otherwise: u32,
}

impl Leaf {
    fn of(answer: u32) -> Self {
        Self {
            conditional: Vec::new(),
            otherwise: answer,
        }
    }

    fn program(&self) -> Program {
        let mut program: Program = self
            .conditional
            .iter()
            .flat_map(|(conditions, answer)| bpf::if_all(conditions, *answer))
            .collect();
        program.push(bpf::answer(self.otherwise));
        program
    }
}

impl Ranges {
    /// Adds the calls of an architecture, whose numbers are above those of the ones before.
    fn add(&mut self, seccomp: &Seccomp, arch: &Arch) {
        let decisions = decisions(seccomp, arch);
        let mut numbered = decisions
            .keys()
            .copied()
            .filter(|&call| call < arch.first + PRIVATE);
        let newest = numbered.next_back();
        let default = answer(seccomp.default_action);
        let without_rule = |call: u32| {
            let is_newer = newest.is_some_and(|newest| call > newest);
            // Programs and C libraries try new calls and fall back to older ones, but only after
            // this errno. runc has the same rule.
            match is_newer && !seccomp.default_action.is_permissive() {
                true => libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
                false => default,
            }
        };
        self.push(arch.first, Leaf::of(without_rule(arch.first)));
        for (call, decision) in decisions {
            let leaf = Leaf {
                conditional: decision.conditional,
                otherwise: decision.always.unwrap_or(default),
            };
            self.push(call, leaf);
            self.push(call + 1, Leaf::of(without_rule(call + 1)));
        }
    }

    /// What is above the numbers of x86_64: x32, and the number of a skipped call.
    fn end_of_x86_64(&mut self, seccomp: &Seccomp, arches: &[&Arch]) {
        if !arches.iter().any(|arch| arch.name == SeccompArch::X32) {
            self.push(X32, Leaf::of(libc::SECCOMP_RET_KILL_THREAD));
        }
        self.push(SKIPPED, Leaf::of(answer(seccomp.default_action)));
    }

    /// From `first` on, which is not below any that is there, this holds.
    fn push(&mut self, first: u32, leaf: Leaf) {
        if self.0.last().is_some_and(|&(last, _)| last == first) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, last)| *last != leaf) {
            self.0.push((first, leaf));
        }
    }

    /// A search by halves.
    fn search(&self) -> Program {
        fn among(ranges: &[(u32, Leaf)]) -> Program {
            match ranges {
                [] => Program::new(),
                [(_, leaf)] => leaf.program(),
                _ => {
                    let (lower, upper) = ranges.split_at(ranges.len() / 2);
                    bpf::if_at_least(upper[0].0, among(upper), among(lower))
                }
            }
        }
        among(&self.0)
    }
}

/// What becomes of each call of an architecture that has a rule.
///
/// A rule without conditions holds for the call whatever the others say, the first of them, as with
/// libseccomp; otherwise the first that fits.
fn decisions(seccomp: &Seccomp, arch: &Arch) -> BTreeMap<u32, Decision> {
    let mut decisions = BTreeMap::<u32, Decision>::new();
    let numbers = (arch.numbers)();
    let mut decide = |call: &str, conditions: Vec<SeccompArg>, action: SeccompAction| {
        let Some(&number) = numbers.get(call) else {
            return;
        };
        let decision = decisions.entry(number).or_default();
        if conditions.is_empty() {
            decision.always.get_or_insert(answer(action));
        } else {
            let narrow = arch.narrow;
            let conditions = conditions.into_iter().map(|arg| Condition { arg, narrow });
            let conditions = conditions.collect();
            decision.conditional.push((conditions, answer(action)));
        }
    };
    for rule in &seccomp.rules {
        for name in &rule.names {
            for conditions in alternatives(&rule.args) {
                decide(name, conditions, rule.action);
            }
            // The arguments of a call behind another one are in memory, which a filter does not
            // see: what some arguments forbid is forbidden, what they allow is not allowed.
            if let Some((multiplexer, number)) = (arch.multiplexed)(name)
                && (rule.args.is_empty() || restricts(seccomp, rule))
            {
                let which = SeccompArg {
                    index: 0,
                    value: number,
                    value_two: 0,
                    op: SeccompOp::Equal,
                };
                decide(multiplexer, vec![which], rule.action);
            }
        }
    }
    for decision in decisions.values_mut().filter(|one| one.always.is_some()) {
        decision.conditional.clear();
    }
    decisions
}

/// The conditions of which all must fit; where two are about the same argument, each on its own, as
/// with runc.
fn alternatives(args: &[SeccompArg]) -> Vec<Vec<SeccompArg>> {
    let twice = |(index, arg): (usize, &SeccompArg)| {
        let mut earlier = args[..index].iter();
        earlier.any(|other| other.index == arg.index)
    };
    if args.iter().enumerate().any(twice) {
        args.iter().map(|&arg| vec![arg]).collect()
    } else {
        vec![args.to_vec()]
    }
}

//! Programs of the kernel's filter machine (classic BPF).
//!
//! Its jumps go forward by a number of instructions, so programs can be put behind one another as
//! they are.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET,
    BPF_W, sock_filter,
};
use reaper_spec::{SeccompArg, SeccompOp};

/// What a program is made of.
pub(super) type Program = Vec<sock_filter>;

/// The offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The largest distance of a conditional jump.
const FAR: usize = u8::MAX as usize;

fn instruction(code: u32, k: u32, yes: usize, no: usize) -> sock_filter {
    sock_filter {
        code: code.try_into().expect("codes have 16 bits"),
        jt: yes.try_into().expect("a short jump"),
        jf: no.try_into().expect("a short jump"),
        k,
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

pub(super) fn load_number() -> sock_filter {
    load(NUMBER)
}

pub(super) fn load_arch() -> sock_filter {
    load(ARCH)
}

pub(super) fn answer(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, value, 0, 0)
}

/// Goes on with `yes` if what was loaded compares with `value` so, otherwise with `no`, which both end
/// with an answer.
fn branch(compare: u32, value: u32, yes: Program, no: Program) -> Program {
    let mut program = if no.len() <= FAR {
        vec![instruction(BPF_JMP | compare | BPF_K, value, no.len(), 0)]
    } else {
        let distance = no.len().try_into().expect("programs are short");
        vec![
            instruction(BPF_JMP | compare | BPF_K, value, 0, 1),
            instruction(BPF_JMP | BPF_JA, distance, 0, 0),
        ]
    };
    program.extend(no);
    program.extend(yes);
    program
}

pub(super) fn if_equal(value: u32, yes: Program, no: Program) -> Program {
    branch(BPF_JEQ, value, yes, no)
}

pub(super) fn if_at_least(value: u32, yes: Program, no: Program) -> Program {
    branch(BPF_JGE, value, yes, no)
}

/// A condition on an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) arg: SeccompArg,
    /// Whether arguments have 32 bits: what the other half of the register holds does not count.
    pub(super) narrow: bool,
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum To {
    /// To the next instruction.
    Next,
    /// The condition is fulfilled.
    Fit,
    /// It is not.
    Miss,
}

enum Step {
    Load(u32),
    Mask(u32),
    Compare(u32, u32, To, To),
}

/// Answers `value` if all conditions are fulfilled. Otherwise the instruction behind it is next.
pub(super) fn if_all(conditions: &[Condition], value: u32) -> Program {
    // From the end, since each must know how far the miss is.
    let mut program = vec![answer(value)];
    for condition in conditions.iter().rev() {
        let steps = steps(condition);
        let length = steps.len();
        let rest = program.len();
        let place = |(index, step): (usize, Step)| {
            let to = |to| match to {
                To::Next => 0,
                To::Fit => length - index - 1,
                To::Miss => length - index - 1 + rest,
            };
            match step {
                Step::Load(offset) => load(offset),
                Step::Mask(mask) => instruction(BPF_ALU | BPF_AND | BPF_K, mask, 0, 0),
                Step::Compare(how, value, yes, no) => {
                    instruction(BPF_JMP | how | BPF_K, value, to(yes), to(no))
                }
            }
        };
        let mut placed: Program = steps.into_iter().enumerate().map(place).collect();
        placed.append(&mut program);
        program = placed;
    }
    program
}

/// The machine compares 32 bits at a time: the upper half first. All machines that have a table here
/// store the lower one first.
fn steps(condition: &Condition) -> Vec<Step> {
    let Condition {
        arg: condition,
        narrow,
    } = condition;
    let low = ARGUMENTS + 8 * u32::from(condition.index);
    let high = low + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (upper, lower) = halves(condition.value);
    let ordered = |last, above, below, yes, no| {
        (
            vec![
                Step::Compare(BPF_JGT, upper, above, To::Next),
                Step::Compare(BPF_JEQ, upper, To::Next, below),
            ],
            vec![Step::Compare(last, lower, yes, no)],
        )
    };
    let (of_upper, of_lower) = match condition.op {
        SeccompOp::Equal => (
            vec![Step::Compare(BPF_JEQ, upper, To::Next, To::Miss)],
            vec![Step::Compare(BPF_JEQ, lower, To::Fit, To::Miss)],
        ),
        SeccompOp::NotEqual => (
            vec![Step::Compare(BPF_JEQ, upper, To::Next, To::Fit)],
            vec![Step::Compare(BPF_JEQ, lower, To::Miss, To::Fit)],
        ),
        SeccompOp::GreaterOrEqual => ordered(BPF_JGE, To::Fit, To::Miss, To::Fit, To::Miss),
        SeccompOp::Greater => ordered(BPF_JGT, To::Fit, To::Miss, To::Fit, To::Miss),
        SeccompOp::Less => ordered(BPF_JGE, To::Miss, To::Fit, To::Miss, To::Fit),
        SeccompOp::LessOrEqual => ordered(BPF_JGT, To::Miss, To::Fit, To::Miss, To::Fit),
        SeccompOp::MaskedEqual => {
            // As with libseccomp, what the mask leaves out of the other side does not count.
            let (wanted_upper, wanted_lower) = halves(condition.value_two & condition.value);
            (
                vec![
                    Step::Mask(upper),
                    Step::Compare(BPF_JEQ, wanted_upper, To::Next, To::Miss),
                ],
                vec![
                    Step::Mask(lower),
                    Step::Compare(BPF_JEQ, wanted_lower, To::Fit, To::Miss),
                ],
            )
        }
    };
    let mut steps = Vec::new();
    if !narrow {
        steps.push(Step::Load(high));
        steps.extend(of_upper);
    }
    steps.push(Step::Load(low));
    steps.extend(of_lower);
    steps
}

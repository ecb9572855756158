//! The rules as a program of the kernel, for version 2.
//!
//! The kernel runs it for each device that a process of the cgroup opens or makes a node of, with
//! `struct bpf_cgroup_dev_ctx` of linux/bpf.h, and forbids that if the answer is 0. Each entry of
//! the table becomes some jumps to the next one and, where none is taken, an answer: so the kernel's
//! verifier meets each instruction once, however many entries there are.

use super::{
    instruction::Instruction,
    rules::{Access, Entry, Table},
};

/// The registers: where an answer is, and where the context is at first.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
/// What the context has.
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The codes of linux/bpf.h that are used, with a constant as the second operand.
pub(super) const LOAD_32: u8 = 0x61;
pub(super) const MOVE_REGISTER_32: u8 = 0xbc;
pub(super) const MOVE_32: u8 = 0xb4;
pub(super) const AND_32: u8 = 0x54;
pub(super) const SHIFT_RIGHT_32: u8 = 0x74;
/// Jumps of 32 bits, since Linux 5.1: a constant of 32 bits is extended by its sign otherwise.
pub(super) const JUMP_IF_NOT_EQUAL: u8 = 0x56;
pub(super) const JUMP_IF_ANY_BIT: u8 = 0x46;
pub(super) const EXIT: u8 = 0x95;

fn constant(code: u8, register: u8, value: u32, jump: i16) -> Instruction {
    Instruction::new(code, register, 0, jump, value.cast_signed())
}

fn answer(allowed: bool) -> [Instruction; 2] {
    [
        constant(MOVE_32, ANSWER, allowed.into(), 0),
        constant(EXIT, 0, 0, 0),
    ]
}

/// The program of a table.
pub(super) fn compile(table: &Table) -> Vec<Instruction> {
    let load = |register, offset| Instruction::new(LOAD_32, register, CONTEXT, offset, 0);
    // The first word is the access and, in its lower half, the kind.
    let mut program = vec![
        load(KIND, 0),
        load(MAJOR, 4),
        load(MINOR, 8),
        Instruction::new(MOVE_REGISTER_32, ACCESS, KIND, 0, 0),
        constant(SHIFT_RIGHT_32, ACCESS, 16, 0),
        constant(AND_32, KIND, 0xffff, 0),
    ];
    for entry in &table.0 {
        program.extend(compile_entry(entry));
    }
    // The verifier does not know that the last entries are about any device.
    program.extend(answer(false));
    program
}

fn compile_entry(entry: &Entry) -> Vec<Instruction> {
    let decision = match entry.allowed {
        Access::ALL => answer(true).to_vec(),
        allowed => {
            let forbidden = constant(JUMP_IF_ANY_BIT, ACCESS, allowed.inverse().0.into(), 2);
            [&[forbidden][..], &answer(true), &answer(false)].concat()
        }
    };
    let conditions = [
        Some((KIND, entry.kind as u32)),
        entry.major.map(|major| (MAJOR, major)),
        entry.minor.map(|minor| (MINOR, minor)),
    ];
    let conditions: Vec<_> = conditions.into_iter().flatten().collect();
    let count = conditions.len();
    let jump = |(index, (register, value)): (usize, &(u8, u32))| {
        let next = count - index - 1 + decision.len();
        let next = i16::try_from(next).expect("an entry has few instructions");
        constant(JUMP_IF_NOT_EQUAL, *register, *value, next)
    };
    let jumps: Vec<_> = conditions.iter().enumerate().map(jump).collect();
    [jumps, decision].concat()
}

//! An instruction of the kernel's machine for programs.

/// `struct bpf_insn` of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    /// The register of the destination.
    pub(super) to: u8,
    /// The register of the source.
    pub(super) from: u8,
    pub(super) offset: i16,
    pub(super) value: i32,
}

impl Instruction {
    pub(super) const fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Self {
        Self {
            code,
            to,
            from,
            offset,
            value,
        }
    }

    /// As the kernel reads it.
    pub(super) fn bytes(&self) -> [u8; 8] {
        // The registers are a bit field, which begins at the other end in big endian.
        let registers = match cfg!(target_endian = "little") {
            true => self.to | self.from << 4,
            false => self.to << 4 | self.from,
        };
        let [low, high] = self.offset.to_ne_bytes();
        let [a, b, c, d] = self.value.to_ne_bytes();
        [self.code, registers, low, high, a, b, c, d]
    }
}

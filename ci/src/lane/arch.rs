// SPDX-License-Identifier: GPL-2.0
//! What others call an architecture.

use crate::lane::spec::Arch;

impl Arch {
    pub fn kernel(self) -> &'static str {
        match self {
            Arch::X86 => "x86_64",
            Arch::Arm64 => "arm64",
        }
    }

    pub fn image(self) -> &'static str {
        match self {
            Arch::X86 => "arch/x86/boot/bzImage",
            Arch::Arm64 => "arch/arm64/boot/Image",
        }
    }

    pub fn qemu(self) -> &'static str {
        match self {
            Arch::X86 => "qemu-system-x86_64",
            Arch::Arm64 => "qemu-system-aarch64",
        }
    }
}

// SPDX-License-Identifier: GPL-2.0
//! An architecture, and what others call it.

use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    #[serde(rename = "x86_64")]
    X86,
    Arm64,
}

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

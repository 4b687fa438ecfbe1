//! Where a migration stands, as the views of policies show it (`filters/ABI.md`, section 4). Crosses from control to the cores.

use super::abi;

/// Made by control with every plan. A core passes it to the filters and cannot read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewContext {
    phase: abi::Phase,
    authority: abi::Authority,
}

impl ViewContext {
    #[must_use]
    pub fn new(phase: abi::Phase, authority: abi::Authority) -> Self {
        Self { phase, authority }
    }

    pub(crate) fn phase(self) -> abi::Phase {
        self.phase
    }

    pub(crate) fn authority(self) -> abi::Authority {
        self.authority
    }
}

/// The context of an interlay without a migration.
impl Default for ViewContext {
    fn default() -> Self {
        Self { phase: abi::Phase::PreTest, authority: abi::Authority::Source }
    }
}

//! Where a migration stands, as the views of policies say it (`filters/ABI.md`, section 4). Crosses from control to the cores.

use super::abi;

/// Made by control beside every plan. A core hands it to the filters and can read nothing of it.
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

/// Of an interlay without a migration.
impl Default for ViewContext {
    fn default() -> Self {
        Self { phase: abi::Phase::PreTest, authority: abi::Authority::Source }
    }
}

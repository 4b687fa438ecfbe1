//! What the views of policies say of where a migration stands, in the words of filters/ABI.md. Pure.

use crate::workflow::Phase;
use base::model::{Authority, Side};
use policy::{ViewContext, abi};

/// Where a migration stands, as the filters on the cores see it.
pub fn view_context(phase: Phase, authority: Authority) -> ViewContext {
    ViewContext::new(view_phase(phase), view_authority(authority))
}

pub fn view_authority(authority: Authority) -> abi::Authority {
    match authority.side {
        Side::Source => abi::Authority::Source,
        Side::Target => abi::Authority::Target,
    }
}

/// The only table of phases in the words of filters/ABI.md, section 4.
pub fn view_phase(phase: Phase) -> abi::Phase {
    match phase {
        Phase::PreTest => abi::Phase::PreTest,
        Phase::Analyze => abi::Phase::Analyze,
        Phase::Compare => abi::Phase::Compare,
        Phase::Test => abi::Phase::Test,
        Phase::Migrate => abi::Phase::Migrate,
        Phase::Rollback => abi::Phase::Rollback,
        Phase::Commit => abi::Phase::Commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of filters/ABI.md, section 4: filters outlive this program, so they never change.
    #[test]
    fn every_phase_has_its_number_in_the_views() {
        let numbers = Phase::ALL.map(|phase| abi::Phase::from_code(view_phase(phase) as u8));
        let documented = [1, 2, 3, 4, 5, 6, 7].map(abi::Phase::from_code);
        assert_eq!(numbers, documented);
        assert!(documented.iter().all(Option::is_some));
    }
}

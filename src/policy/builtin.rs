//! The filters that are part of the program. They are ordinary modules: loaded, checked and called like any other.

/// One shipped filter, with its recorded cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    /// Its name without the prefix `builtin:`.
    pub name: &'static str,
    pub wasm: &'static [u8],
    pub cases: &'static str,
}

/// Built from `filters/policies/`; `filters/build.sh --check` compares them with their sources.
const SHIPPED: &[Shipped] = &[
    Shipped {
        name: "mirror-reads",
        wasm: include_bytes!("../../filters/dist/mirror_reads.wasm"),
        cases: include_str!("../../filters/dist/mirror_reads.cases.jsonl"),
    },
    Shipped {
        name: "compare-semantic",
        wasm: include_bytes!("../../filters/dist/compare_semantic.wasm"),
        cases: include_str!("../../filters/dist/compare_semantic.cases.jsonl"),
    },
    Shipped {
        name: "rollback-threshold",
        wasm: include_bytes!("../../filters/dist/rollback_threshold.wasm"),
        cases: include_str!("../../filters/dist/rollback_threshold.cases.jsonl"),
    },
];

#[must_use]
pub fn shipped() -> &'static [Shipped] {
    SHIPPED
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::{PolicySettings, PolicySlot};

    #[test]
    fn every_default_is_part_of_the_program() {
        let settings = PolicySettings::shipped();
        for slot in [PolicySlot::Mirror, PolicySlot::Compare, PolicySlot::Rollback] {
            let setting = PolicySettings::in_force(&[&settings], slot).expect("a default");
            let name = setting.filter.as_str().strip_prefix("builtin:").expect("a shipped one");
            assert!(shipped().iter().any(|shipped| shipped.name == name), "{name}");
        }
    }
}

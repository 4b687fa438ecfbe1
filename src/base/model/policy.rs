//! Policies as an operator sets them: which filter makes which decision of an interlay, how strictly, with which configuration.
//!
//! Plain data; what a filter is and how it is run is `policy`'s. Crosses threads.

use std::fmt;

use super::limits;
use super::migration::{DecisionError, decision};

/// What every name of a shipped filter begins with.
pub const BUILTIN_PREFIX: &str = "builtin:";

decision!(
    /// A decision that belongs to the user.
    PolicySlot, "policy", {
        /// What is copied to the shadow and compared, and what is refused: hook `cf_on_request`.
        Mirror = "mirror",
        /// What counts as a difference: hook `cf_on_pair`.
        Compare = "compare",
        /// When to hold and when to go back: hook `cf_on_window`.
        Rollback = "rollback",
        /// What of each record is copied: hook `cf_on_record`.
        Records = "records",
    }
);

decision!(
    /// What happens with a verdict that stops something (refuse, hold, roll back). Every other verdict is carried out in every mode.
    PolicyMode, "policy mode", {
        /// It is counted.
        Observe = "observe",
        /// It is counted and reported to the operator.
        Warn = "warn",
        /// It is carried out.
        Block = "block",
    }
);

decision!(
    /// What answers in place of a filter that has faulted.
    OnFault, "on_fault", {
        FailOpen = "fail_open",
        FailClosed = "fail_closed",
    }
);

/// Name of a loaded filter: 1 to 64 characters of `a-z A-Z 0-9 - _ .`, or `builtin:` and such a name for a shipped one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterName(String);

impl FilterName {
    /// # Errors
    /// [`DecisionError`] that describes a valid name.
    pub fn new(text: &str) -> Result<Self, DecisionError> {
        let name = text.strip_prefix(BUILTIN_PREFIX).unwrap_or(text);
        let good = !name.is_empty()
            && name.len() <= limits::NAME_BYTES_MAX
            && name.as_bytes()[0].is_ascii_alphanumeric()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if good {
            return Ok(Self(text.to_owned()));
        }
        let given: String = text.chars().take(80).collect();
        Err(DecisionError::new(format!(
            "filter {given:?} is not a valid name: use 1 to {} characters of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a \
             letter or digit, or builtin: and the name of a shipped filter",
            limits::NAME_BYTES_MAX
        )))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_builtin(&self) -> bool {
        self.0.starts_with(BUILTIN_PREFIX)
    }
}

impl fmt::Display for FilterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes the decision of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyChoice {
    /// No filter: the host's own default of the hook.
    Nobody,
    Filter(PolicySetting),
}

impl PolicyChoice {
    /// The word written instead of a filter's name.
    pub const NOBODY: &str = "none";
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySetting {
    pub filter: FilterName,
    pub mode: PolicyMode,
    pub on_fault: OnFault,
    /// A JSON object, given to the filter's `cf_configure`.
    pub config: String,
}

impl PolicySetting {
    #[must_use]
    pub fn of(filter: FilterName) -> Self {
        Self { filter, mode: PolicyMode::Observe, on_fault: OnFault::FailOpen, config: "{}".to_owned() }
    }
}

/// The choices made at one level; an absent one is taken from the next level: the migration, then the interlay, then
/// [`PolicySettings::shipped`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySettings {
    pub mirror: Option<PolicyChoice>,
    pub compare: Option<PolicyChoice>,
    pub rollback: Option<PolicyChoice>,
    pub records: Option<PolicyChoice>,
}

impl PolicySettings {
    /// The defaults: the shipped filters, which are ordinary modules.
    #[must_use]
    pub fn shipped() -> Self {
        let builtin =
            |name: &str| Some(PolicyChoice::Filter(PolicySetting::of(FilterName(format!("{BUILTIN_PREFIX}{name}")))));
        Self {
            mirror: builtin("mirror-reads"),
            compare: builtin("compare-semantic"),
            rollback: builtin("rollback-threshold"),
            records: Some(PolicyChoice::Nobody),
        }
    }

    #[must_use]
    pub fn get(&self, slot: PolicySlot) -> Option<&PolicyChoice> {
        match slot {
            PolicySlot::Mirror => self.mirror.as_ref(),
            PolicySlot::Compare => self.compare.as_ref(),
            PolicySlot::Rollback => self.rollback.as_ref(),
            PolicySlot::Records => self.records.as_ref(),
        }
    }

    pub fn set(&mut self, slot: PolicySlot, choice: Option<PolicyChoice>) {
        match slot {
            PolicySlot::Mirror => self.mirror = choice,
            PolicySlot::Compare => self.compare = choice,
            PolicySlot::Rollback => self.rollback = choice,
            PolicySlot::Records => self.records = choice,
        }
    }

    /// The filter in force for one slot: that of the first level that sets it.
    #[must_use]
    pub fn in_force<'a>(chain: &[&'a Self], slot: PolicySlot) -> Option<&'a PolicySetting> {
        match chain.iter().find_map(|settings| settings.get(slot)) {
            Some(PolicyChoice::Filter(setting)) => Some(setting),
            Some(PolicyChoice::Nobody) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["builtin:mirror-reads", "deny_dangerous", "a.b"] {
            assert_eq!(FilterName::new(good).expect(good).as_str(), good);
        }
        for bad in ["", "builtin:", "a/b", "other:x", "-x", "ä"] {
            assert!(FilterName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_nearest_choice_wins() {
        let shipped = PolicySettings::shipped();
        let mut interlay = PolicySettings::default();
        interlay.set(PolicySlot::Rollback, Some(PolicyChoice::Nobody));
        let own = PolicySetting::of(FilterName::new("own").expect("a name"));
        let mut migration = PolicySettings::default();
        migration.set(PolicySlot::Mirror, Some(PolicyChoice::Filter(own.clone())));
        let chain = [&migration, &interlay, &shipped];
        assert_eq!(PolicySettings::in_force(&chain, PolicySlot::Mirror), Some(&own));
        assert_eq!(PolicySettings::in_force(&chain, PolicySlot::Rollback), None);
        let compare = PolicySettings::in_force(&chain, PolicySlot::Compare).expect("shipped");
        assert_eq!(compare.filter.as_str(), "builtin:compare-semantic");
    }
}

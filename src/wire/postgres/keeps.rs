//! The kinds of state that a statement leaves in its session. Pure; any thread.

/// A set of kinds of state that statements leave in their session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Keeps(u16);

impl Keeps {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// SET for the session, of a name without a dot.
    pub const SET: Self = Self(1);
    /// LISTEN.
    pub const LISTEN: Self = Self(1 << 1);
    /// CREATE TEMP … and SELECT INTO TEMP; not ON COMMIT DROP.
    pub const TEMP_TABLE: Self = Self(1 << 2);
    /// An advisory lock of the session, not of the transaction.
    pub const ADVISORY_LOCK: Self = Self(1 << 3);
    /// DECLARE … WITH HOLD.
    pub const HELD_CURSOR: Self = Self(1 << 4);
    /// PREPARE as SQL.
    pub const SQL_PREPARE: Self = Self(1 << 5);
    /// An open descriptor of a large object, until the transaction ends.
    pub const LARGE_OBJECT: Self = Self(1 << 6);
    /// set_config() that is not local.
    pub const SET_CONFIG: Self = Self(1 << 7);
    /// nextval() or setval(): what currval() and lastval() answer.
    pub const CURRVAL: Self = Self(1 << 8);
    /// SET or set_config() of a name with a dot, which pg_settings does not show.
    pub const CUSTOM_SETTING: Self = Self(1 << 9);
    /// A named statement of the protocol; never found in a text by [`super::facts`].
    pub const PREPARED: Self = Self(1 << 10);

    /// Names in the order they are shown. SET and SET_CONFIG are one thing to an operator.
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self(1 | 1 << 7), "set"),
        (Self::CUSTOM_SETTING, "custom setting"),
        (Self::LISTEN, "listen"),
        (Self::TEMP_TABLE, "temp table"),
        (Self::ADVISORY_LOCK, "advisory lock"),
        (Self::HELD_CURSOR, "held cursor"),
        (Self::SQL_PREPARE, "sql prepare"),
        (Self::LARGE_OBJECT, "large object"),
        (Self::CURRVAL, "currval"),
        (Self::PREPARED, "prepared"),
    ];

    /// Whether it is the empty set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are in it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in it and not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of its kinds, for operators and for `SessionInfo::keeps`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(own, _)| self.0 & own.0 != 0).map(|(_, name)| *name)
    }
}

impl std::ops::BitOr for Keeps {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Keeps {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_state_has_a_name() {
        let all = Keeps(0x7ff);
        assert_eq!(all.names().count(), 10);
        assert_eq!(Keeps::SET_CONFIG.names().collect::<Vec<_>>(), ["set"]);
    }
}

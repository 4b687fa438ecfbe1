//! Names and numbers that identify things. Names are validated once, here, and need no further checks.

use std::fmt;

use super::limits;

/// Why a name was refused, in words an operator can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    what: &'static str,
    given: String,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} is not a valid name: use 1 to {} characters of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or digit",
            self.what,
            self.given,
            limits::NAME_BYTES_MAX
        )
    }
}

impl std::error::Error for NameError {}

fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    let good = !name.is_empty()
        && name.len() <= limits::NAME_BYTES_MAX
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if good { Ok(()) } else { Err(NameError { what, given: name.chars().take(80).collect() }) }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(String);

        impl $type {
            /// # Errors
            /// [`NameError`] when the text is empty, too long or has a character outside the allowed set.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check($what, name)?;
                Ok(Self(name.to_owned()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// One database server or cluster, as the configuration names it.
    EndpointName,
    "endpoint"
);
name_type!(
    /// One listener applications connect to, as the configuration names it.
    InterlayName,
    "interlay"
);
name_type!(
    /// The record of one migration.
    MigrationId,
    "migration"
);

/// Index of a data-plane core, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub u16);

/// Number of a published [`super::RoutePlan`]; grows by one with each publication to an interlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// Wall-clock milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once_and_the_error_says_how_to_fix_them() {
        assert!(MigrationId::new("orders-2.eu_west").is_ok());
        let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
        for bad in ["", "-a", "a b", "a/b", "ä", long.as_str()] {
            let error = MigrationId::new(bad).expect_err(bad).to_string();
            assert!(error.starts_with("migration ") && error.contains("a-z"), "{error}");
        }
    }
}

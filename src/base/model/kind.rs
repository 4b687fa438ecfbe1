//! The kinds of databases.

/// The wire protocol of an endpoint or interlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProtocolKind {
    Redis,
    Postgres,
}

impl ProtocolKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}
